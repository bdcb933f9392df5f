//! What one measurement computes, as a file that engines in any language read.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use anyhow::{Context, Result};
use dit_config::DitSpec;
use dit_weights::{SafetensorsFile, to_tensor};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

#[derive(Serialize, Deserialize)]
pub struct Case {
    /// safetensors in the original's layout; for a VAE, a folder as diffusers writes it.
    pub weights: PathBuf,
    /// safetensors.
    pub input: PathBuf,
    #[serde(flatten)]
    pub task: Task,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// A guided evaluation of `x` (N, C, H, W) at `t` (N,) for `labels` (N,): a batch of 2N → (N, 2C, H, W).
    Sample(SampleTask),
    /// Raw latents `z` (N, C, h, w) to images.
    Decode,
    /// Optimiser steps on batches of random latents.
    Train(TrainTask),
}

#[derive(Serialize, Deserialize)]
pub struct TrainTask {
    /// As recipes name it.
    pub name: String,
    pub model: DitSpec,
    /// Samples of a step.
    pub batch: u32,
    /// A folder of latents as `precompute-latents` writes them; the peers train on the inputs `x0`, `noise`, `t` and `labels`.
    pub latents: PathBuf,
}

#[derive(Serialize, Deserialize)]
pub struct SampleTask {
    pub model: DitSpec,
    pub null_class: i64,
    /// On the first three channels.
    pub guidance: f64,
}

impl Case {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no case", path.display()))
    }

    /// The inputs by name.
    pub fn inputs(&self, device: Device) -> Result<BTreeMap<String, Tensor>> {
        use dit_weights::TensorSource;
        let file = SafetensorsFile::open(&self.input)?;
        let names = file.infos().keys();
        names.map(|name| Ok((name.clone(), to_tensor(&file, name)?.to_device(device)))).collect()
    }
}

/// The input of this name.
pub fn take(inputs: &mut BTreeMap<String, Tensor>, name: &str) -> Result<Tensor> {
    inputs.remove(name).with_context(|| format!("the case's inputs lack {name}"))
}
