use std::path::PathBuf;

use dit_config::{DitConfig, DitSpec};
use dit_sample::{LabelPolicy, Plan, Provenance, Settings, Source, Timings};
use serde::Serialize;

use crate::machine;

/// What `--json` prints.
#[derive(Serialize)]
pub struct Summary {
    checkpoint: Source,
    vae: Option<Source>,
    model: String,
    config: DitSpec,
    device: String,
    threads: usize,
    precision: &'static str,
    settings: Settings,
    /// Steps that the solver takes for each picture.
    steps: usize,
    images: usize,
    labels: LabelPolicy,
    batch_size: usize,
    seconds_load: f64,
    /// The median step, which computes a whole batch; on a GPU the mean step of the median batch.
    seconds_per_step: Option<f64>,
    /// Decoding and writing, all pictures.
    seconds_decode: f64,
    seconds_total: f64,
    peak_rss_bytes: Option<u64>,
    outputs: Vec<String>,
}

impl Summary {
    pub fn new(
        provenance: &Provenance,
        plan: &Plan,
        config: &DitConfig,
        timings: &Timings,
        seconds_load: f64,
        seconds_total: f64,
        outputs: &[PathBuf],
    ) -> Self {
        Self {
            checkpoint: provenance.checkpoint.clone(),
            vae: provenance.vae.clone(),
            model: config.to_string(),
            config: config.clone().into(),
            device: provenance.device.clone(),
            threads: provenance.threads,
            precision: plan.settings().precision.name(),
            settings: plan.settings().clone(),
            steps: plan.schedule().num_steps(),
            images: plan.classes().len(),
            labels: provenance.labels,
            batch_size: plan.batch_size(),
            seconds_load,
            seconds_per_step: timings.median_step(),
            seconds_decode: timings.decode,
            seconds_total,
            peak_rss_bytes: machine::peak_rss_bytes(),
            outputs: outputs.iter().map(|path| path.display().to_string()).collect(),
        }
    }
}
