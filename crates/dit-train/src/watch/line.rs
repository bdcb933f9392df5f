//! A line of the log.

use serde::{Deserialize, Serialize};

use crate::{BucketLosses, EmaLag, Event, Losses, Remedy};

/// One line of `log.jsonl`. `step` is how many steps had been taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// The run began or continued.
    Started {
        /// Steps taken before.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
    },
    /// Means over a window of steps.
    Train {
        /// The last of them.
        step: u64,
        /// Means over all samples.
        #[serde(flatten)]
        losses: LossLine,
        /// Learning rate of the last.
        lr: f64,
        /// Mean of the gradient's norm.
        grad_norm: f64,
        /// Speed.
        images_per_second: f64,
        /// Means over ranges of timesteps.
        by_timestep: Vec<BucketLine>,
    },
    /// The loss on held-out records.
    Validation {
        /// Steps taken.
        step: u64,
        /// Samples.
        images: u64,
        /// Of the weights as they are trained.
        raw: LossLine,
        /// The same over ranges of timesteps.
        raw_by_timestep: Vec<BucketLine>,
        /// Of the first average.
        ema: LossLine,
        /// The same over ranges of timesteps.
        ema_by_timestep: Vec<BucketLine>,
    },
    /// FID of a few samples of the first average.
    Evaluation {
        /// Steps taken.
        step: u64,
        /// Of how many samples: it compares with that of as many only.
        samples: usize,
        /// The feature network.
        features: String,
        /// Guidance of the samples; 1 is none.
        cfg_scale: f64,
        /// The distance.
        fid: f64,
        /// Its 95 % interval over the draw of the samples.
        interval: [f64; 2],
        /// What to know before it is compared.
        note: String,
        /// How long it took.
        seconds: f64,
    },
    /// A checkpoint is on disk.
    Checkpoint {
        /// Steps taken.
        step: u64,
        /// The folder's name.
        folder: String,
        /// How long it took.
        seconds: f64,
    },
    /// A checkpoint could not be written.
    CheckpointFailed {
        /// Steps taken.
        step: u64,
        /// Why.
        error: String,
    },
    /// A loss or gradient was no number.
    NonFinite {
        /// Steps taken when the run went on.
        step: u64,
        /// Where it was found.
        found: String,
        /// What was done.
        remedy: String,
    },
    /// An average still holds some of the initial weights at the end.
    EmaLags {
        /// Steps of the run.
        step: u64,
        /// Its decay.
        decay: f64,
        /// The share that is left.
        initial_share: f64,
    },
}

/// Means of the loss's terms; a term is absent where the loss has none such.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossLine {
    /// What is minimised.
    pub loss: Option<f64>,
    /// The squared error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mse: Option<f64>,
    /// The variational bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vb: Option<f64>,
}

/// The same over a range of timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BucketLine {
    /// The first timestep, and the one after the last.
    pub timesteps: [u32; 2],
    /// Means; null where no sample fell into it.
    #[serde(flatten)]
    pub losses: LossLine,
}

impl From<Losses> for LossLine {
    fn from(losses: Losses) -> Self {
        Self { loss: Some(losses.total), mse: losses.mse, vb: losses.vb }
    }
}

impl LossLine {
    const NONE: Self = Self { loss: None, mse: None, vb: None };

    fn over(losses: &BucketLosses) -> Self {
        losses.mean().map_or(Self::NONE, Self::from)
    }
}

fn buckets(losses: &BucketLosses) -> Vec<BucketLine> {
    let line = |(range, losses): (std::ops::Range<u32>, Option<Losses>)| BucketLine {
        timesteps: [range.start, range.end],
        losses: losses.map_or(LossLine::NONE, LossLine::from),
    };
    losses.buckets().map(line).collect()
}

impl Line {
    /// What the log says of an event; nothing of single steps and pictures.
    pub fn of(event: &Event<'_>) -> Option<Self> {
        Some(match event {
            Event::Started { step, steps, .. } => Self::Started { step: *step, steps: *steps },
            Event::Step(_) | Event::SamplesDue { .. } => return None,
            Event::Window(window) => Self::Train {
                step: window.step,
                losses: window.losses.into(),
                lr: window.lr,
                grad_norm: window.grad_norm,
                images_per_second: window.images_per_second,
                by_timestep: buckets(&window.by_bucket),
            },
            Event::Validation(report) => Self::Validation {
                step: report.step,
                images: report.images,
                raw: LossLine::over(&report.raw),
                raw_by_timestep: buckets(&report.raw),
                ema: LossLine::over(&report.ema),
                ema_by_timestep: buckets(&report.ema),
            },
            Event::Evaluation(report) => Self::Evaluation {
                step: report.step,
                samples: report.samples,
                features: report.features.clone(),
                cfg_scale: report.cfg_scale,
                fid: report.fid,
                interval: report.interval,
                note: format!("of {} samples only: not comparable beyond this run", report.samples),
                seconds: report.time.as_secs_f64(),
            },
            Event::CheckpointWritten { step, path, time } => Self::Checkpoint {
                step: *step,
                folder: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
                seconds: time.as_secs_f64(),
            },
            Event::CheckpointFailed { step, error, .. } | Event::WaitingForRoom { step, error, .. } => {
                Self::CheckpointFailed { step: *step, error: error.to_string() }
            }
            Event::NonFinite { report, remedy } => {
                let (step, remedy) = match remedy {
                    Remedy::Skipped => (report.step, "the step was left out".to_owned()),
                    Remedy::RolledBack { to } => (*to, format!("went back to step {to}")),
                };
                Self::NonFinite { step, found: report.to_string(), remedy }
            }
            Event::EmaLags(EmaLag { decay, steps, initial_share }) => {
                Self::EmaLags { step: *steps, decay: *decay, initial_share: *initial_share }
            }
        })
    }

    /// The step at which it was written.
    pub fn step(&self) -> u64 {
        match self {
            Self::Started { step, .. }
            | Self::Train { step, .. }
            | Self::Validation { step, .. }
            | Self::Evaluation { step, .. }
            | Self::Checkpoint { step, .. }
            | Self::CheckpointFailed { step, .. }
            | Self::NonFinite { step, .. }
            | Self::EmaLags { step, .. } => *step,
        }
    }
}
