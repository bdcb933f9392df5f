use std::{fmt, path::Path, time::Duration};

use dit_model::Dit;
use serde::{Deserialize, Serialize};

use crate::{BucketLosses, EmaLag, NonFiniteReport, StopRequest, TrainError};

/// Means of the loss's terms over samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Losses {
    /// What is minimised, weights included.
    pub total: f64,
    /// Squared error of the mean's target, unweighted; absent from the KL losses.
    pub mse: Option<f64>,
    /// Term of the variational bound, bits per element; absent where nothing trains the variance.
    pub vb: Option<f64>,
}

/// One optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps taken, this one included: 1 after the first.
    pub step: u64,
    /// Of this step's batch.
    pub losses: Losses,
    /// The learning rate that it used.
    pub lr: f64,
    /// The gradient's 2-norm over all parameters, before clipping.
    pub grad_norm: f64,
    /// Samples in the batch.
    pub images: usize,
    /// From the end of the last step to the end of this one: waiting for data included, validation and checkpoints not.
    pub time: Duration,
}

/// Means over the steps since the last report of this kind.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowReport {
    /// The last of the steps.
    pub step: u64,
    /// How many steps: `log_every`, fewer at the run's end, after its continuation, and where some were left out.
    pub steps: u64,
    /// Means over all samples.
    pub losses: Losses,
    /// Means over the samples of each range of timesteps.
    pub by_bucket: BucketLosses,
    /// Of the last step.
    pub lr: f64,
    /// Mean of the gradient's 2-norm.
    pub grad_norm: f64,
    /// Samples per second of training.
    pub images_per_second: f64,
}

/// The loss on held-out records, with the same noise and timesteps every time.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationReport {
    /// Steps taken.
    pub step: u64,
    /// Samples.
    pub images: u64,
    /// Of the weights that the optimizer moves.
    pub raw: BucketLosses,
    /// Of the first moving average.
    pub ema: BucketLosses,
}

/// FID of a few samples of the first moving average, drawn from the same noise every time.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationReport {
    /// Steps taken.
    pub step: u64,
    /// Samples. FID of few is biased upwards: it compares with that of as many samples only.
    pub samples: usize,
    /// The feature network.
    pub features: String,
    /// Classifier-free guidance; 1 is none.
    pub cfg_scale: f64,
    /// The distance.
    pub fid: f64,
    /// Its 95 % interval over the draw of the samples.
    pub interval: [f64; 2],
    /// How long it took; training waited.
    pub time: Duration,
}

/// What is looked at of a run while it trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measurement {
    /// The loss on held-out records.
    Validation,
    /// Pictures of the first moving average.
    Samples,
    /// FID of a few of them.
    Evaluation,
}

/// Measures samples of a run while it trains; what with, and against what, is not this crate's.
pub trait Evaluator {
    /// Draws and measures samples of the first moving average, `ema`, after `step` steps. An error or a panic costs this
    /// measurement, with a warning, and nothing else; it is called again when the next is due. Must not use libtorch's global
    /// generator.
    ///
    /// Asks `stop` between its batches, and returns nothing once that is requested: the run that continues asks again.
    ///
    /// # Errors
    /// Whatever makes the measurement impossible.
    fn evaluate(&mut self, step: u64, ema: &Dit, stop: &StopRequest)
    -> Result<Option<EvaluationReport>, ObserverError>;
}

/// None where the recipe asks for no evaluation.
#[derive(Default)]
pub(crate) struct MaybeEvaluator(pub Option<Box<dyn Evaluator>>);

impl fmt::Debug for MaybeEvaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "an evaluator" } else { "no evaluator" })
    }
}

/// What became of a step that was not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The update was left out.
    Skipped,
    /// Weights, averages and moments are those of the checkpoint at this step, the newest that was due (one that an interruption
    /// left is passed over); data and random numbers are new ones.
    RolledBack {
        /// The step that the run continues from.
        to: u64,
    },
}

/// What happens in a run, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training begins, or continues.
    Started {
        /// Steps taken before: 0 for a new run.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// What was due after the last of the steps taken and is measured now, as the run was interrupted before. A record that
        /// has it already, of a process that was killed then, drops it.
        owed: &'a [Measurement],
    },
    /// A step was taken.
    Step(&'a StepReport),
    /// `log_every` steps were taken.
    Window(&'a WindowReport),
    /// The held-out loss was measured.
    Validation(&'a ValidationReport),
    /// Samples were measured.
    Evaluation(&'a EvaluationReport),
    /// It is time for pictures.
    SamplesDue {
        /// Steps taken.
        step: u64,
        /// The network with the first moving average's weights, for inference.
        ema: &'a Dit,
        /// To be asked while they are drawn: once it is requested, what is not finished is left, and drawn by the run that
        /// continues.
        stop: &'a StopRequest,
    },
    /// A checkpoint is on disk.
    CheckpointWritten {
        /// Steps taken.
        step: u64,
        /// Its folder.
        path: &'a Path,
        /// How long it took.
        time: Duration,
    },
    /// A checkpoint could not be written, for want of space say. The newest there is stays intact, and training goes on.
    CheckpointFailed {
        /// Steps taken.
        step: u64,
        /// Why.
        error: &'a TrainError,
        /// The step of the newest checkpoint; none where none could ever be written.
        newest: Option<u64>,
    },
    /// The run ends, and the last checkpoint cannot be written. It is tried again until it can, or the run is asked to stop (again).
    WaitingForRoom {
        /// Steps taken.
        step: u64,
        /// How long it is tried by a run that was asked to stop; one whose steps are all taken waits without end.
        at_most: Option<Duration>,
        /// Why.
        error: &'a TrainError,
    },
    /// A loss or gradient was NaN or infinite.
    NonFinite {
        /// Where it was met first.
        report: &'a NonFiniteReport,
        /// What was done.
        remedy: Remedy,
    },
    /// A moving average will still hold a visible part of the initial weights when the run ends.
    EmaLags(EmaLag),
}

/// Watches a run.
pub trait Observer {
    /// Called from the training thread; training waits. An error ends the run without a checkpoint of this moment: report what
    /// can be lived without (a full disk under a log) yourself, and return `Ok`.
    ///
    /// # Errors
    /// Whatever makes going on pointless.
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError>;
}

/// Why an observer ends a run.
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&mut self, _: &Event<'_>) -> Result<(), ObserverError> {
        Ok(())
    }
}
