//! Latents to images by the VAE.

use anyhow::Result;
use dit_vae::{AutoencoderKl, LatentCodec, RawLatents};
use dit_weights::VaeCheckpoint;
use tch::{Device, Tensor};

use crate::case::{Case, take};
use crate::{Engine, Precision, serve::values};

pub struct Decoder {
    vae: AutoencoderKl,
    latents: RawLatents,
    result: Option<Tensor>,
}

impl Decoder {
    pub fn load(case: &Case, device: Device, precision: Precision) -> Result<Self> {
        let vae = AutoencoderKl::load(&VaeCheckpoint::open(&case.weights)?, device, precision.kind())?;
        let latents = RawLatents::new(take(&mut case.inputs(device)?, "z")?);
        Ok(Self { vae, latents, result: None })
    }
}

impl Engine for Decoder {
    fn flop(&self) -> Option<f64> {
        None
    }

    fn step(&mut self) -> Result<Option<f64>> {
        self.result = Some(self.vae.decode_raw(&self.latents)?);
        Ok(None)
    }

    fn output(&self) -> Result<Vec<f32>> {
        values(self.result.as_ref())
    }
}
