//! Latents of a batch, noised: what the classifier is trained and judged on.

use dit_data::shard::LatentBatch;
use dit_diffusion::{
    Draw, LatentShape, Noise, NoiseSchedule, SampleSchedule, SeededNoise, Spacing, StepIndex, StepTables,
};
use dit_vae::{LatentScale, RawLatents};
use tch::{Device, Kind, Tensor};

use crate::Error;

/// Training steps of every published DiT.
const TRAIN_STEPS: usize = 1000;

/// The forward process over a batch's latents.
pub(crate) struct Noising {
    tables: StepTables,
    scale: LatentScale,
    noise: SeededNoise,
    device: Device,
}

/// A noised batch.
pub(crate) struct Noised {
    /// (N, C, H, W).
    pub x: Tensor,
    /// (N,) int64.
    pub t: Tensor,
    /// (N,) int64.
    pub labels: Tensor,
}

impl Noising {
    pub(crate) fn new(scale: LatentScale, seed: u64, device: Device) -> Result<Self, Error> {
        let schedule: SampleSchedule = NoiseSchedule::linear(TRAIN_STEPS)?.respaced(&Spacing::All)?;
        let tables = StepTables::new(&schedule, (Kind::Float, device));
        Ok(Self { tables, scale, noise: SeededNoise::new(seed), device })
    }

    /// The number of timesteps.
    pub(crate) fn timesteps(&self) -> usize {
        self.tables.num_steps()
    }

    /// Sample i at `timesteps[i]`, with the noise of number `first + i`.
    pub(crate) fn apply(&self, batch: &LatentBatch, timesteps: &[usize], first: u64) -> Result<Noised, Error> {
        let [n, c, h, w] = batch.shape;
        let raw = Tensor::f_from_slice(&batch.latents)?.f_view([n, c, h, w].map(|extent| extent as i64))?;
        let x0 = self.scale.apply(&RawLatents::new(raw.to_device(self.device))).into_tensor();
        let numbers: Vec<u64> = (first..first + n as u64).collect();
        // Extents of latents are far below u32::MAX.
        let shape = LatentShape { channels: c as u32, height: h as u32, width: w as u32 };
        let noise = self.noise.draw(&numbers, Draw::Initial, shape)?.to_device(self.device);
        let indices: Vec<StepIndex> = timesteps.iter().map(|&t| StepIndex(t)).collect();
        let t: Vec<i64> = timesteps.iter().map(|&t| t as i64).collect();
        Ok(Noised {
            x: self.tables.at(&indices)?.q_sample(&x0, &noise),
            t: Tensor::from_slice(&t).to_device(self.device),
            labels: Tensor::from_slice(&batch.labels).to_device(self.device),
        })
    }
}
