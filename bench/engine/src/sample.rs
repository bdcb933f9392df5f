//! One guided step of sampling, as `dit-sample` takes it.

use anyhow::Result;
use dit_diffusion::{ClassConditional, ClassifierFree, Denoiser, GuidedChannels, Timestep};
use dit_model::{Dit, GraphedDit, Kernels};
use dit_ops::keep_freed_memory;
use dit_weights::{Checkpoint, OpenOptions};
use tch::{Device, Tensor};

use crate::case::{Case, SampleTask, take};
use crate::{Engine, Precision, serve::values};

pub struct Guided {
    dit: GraphedDit,
    guidance: f64,
    null_class: i64,
    x: Tensor,
    t: Timestep,
    labels: Tensor,
    result: Option<Tensor>,
}

impl Guided {
    pub fn load(case: &Case, task: &SampleTask, device: Device, precision: Precision) -> Result<Self> {
        let checkpoint = Checkpoint::open(&case.weights, &OpenOptions::default())?;
        let kernels = match precision {
            Precision::Fp32 | Precision::Bf16 => Kernels::Fused,
            Precision::Int8 => Kernels::Int8,
        };
        let dit = Dit::load_with(&checkpoint, device, precision.kind(), kernels)?;
        if device == Device::Cpu {
            keep_freed_memory();
        }
        let mut inputs = case.inputs(device)?;
        let (x, labels) = (take(&mut inputs, "x")?, take(&mut inputs, "labels")?);
        let t = Timestep(take(&mut inputs, "t")?.int64_value(&[0]) as u32);
        let dit = GraphedDit::new(dit);
        Ok(Self { dit, guidance: task.guidance, null_class: task.null_class, x, t, labels, result: None })
    }
}

impl Engine for Guided {
    fn flop(&self) -> Option<f64> {
        let rows = 2 * self.x.size()[0];
        Some(2.0 * self.dit.dit().config().macs() as f64 * rows as f64)
    }

    fn step(&mut self) -> Result<Option<f64>> {
        let forward = |x: &Tensor, t: Timestep, labels: &Tensor| Ok(self.dit.forward(x, i64::from(t.0), labels)?);
        let conditional = ClassConditional::new(forward, &self.labels, self.null_class)?;
        let guided = ClassifierFree::new(conditional, self.guidance, GuidedChannels::First(3))?;
        self.result = Some(guided.predict(&self.x, self.t).map_err(anyhow::Error::from_boxed)?);
        Ok(None)
    }

    fn output(&self) -> Result<Vec<f32>> {
        values(self.result.as_ref())
    }
}
