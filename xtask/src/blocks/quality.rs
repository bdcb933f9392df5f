//! The samples of a run, measured.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{
    measured::{CLASSES, Draw, Lab, Quality},
    training::{average_in, checkpoints},
};

/// Samples of each class of the last checkpoint, and of each checkpoint for the curve.
const PER_CLASS: u64 = 1000;
const PER_CLASS_CURVE: u64 = 200;
/// The guidance scales of the last checkpoint's samples; 1 is none.
pub const GUIDANCE: [f64; 2] = [1.0, 2.0];

/// How good the samples of one run are.
pub struct RunQuality {
    /// Of the last checkpoint, one for each of [`GUIDANCE`].
    pub last: Vec<Quality>,
    /// Of each kept checkpoint, by step, of fewer samples without guidance.
    pub over_training: Vec<(u64, Quality)>,
}

/// How many samples numbers at the end, and over training, are of.
pub fn counts() -> (u64, u64) {
    (CLASSES * PER_CLASS, CLASSES * PER_CLASS_CURVE)
}

/// Measures the run in `folder`, or reads what was measured.
pub fn measure(lab: &Lab<'_>, folder: &Path, name: &str) -> Result<RunQuality> {
    let draw = |per_class: u64, cfg_scale: f64| Draw {
        per_class,
        sampler: "dpmpp-2m".to_owned(),
        steps: "lambda20".to_owned(),
        cfg_scale,
    };
    let kept = checkpoints(folder)?;
    let (_, newest) = kept.last().with_context(|| format!("{} has no checkpoint", folder.display()))?;
    let newest = average_in(newest)?;
    let last = |scale: &f64| lab.samples(&format!("{name}-guidance{scale}"), &newest, &draw(PER_CLASS, *scale));
    let last: Vec<Quality> = GUIDANCE.iter().map(last).collect::<Result<_>>()?;
    let mut over_training = Vec::new();
    for (step, checkpoint) in &kept {
        let samples = lab.samples(&format!("{name}-step{step}"), &average_in(checkpoint)?, &draw(PER_CLASS_CURVE, 1.0));
        over_training.extend(lab.if_there(samples)?.map(|quality| (*step, quality)));
    }
    Ok(RunQuality { last, over_training })
}
