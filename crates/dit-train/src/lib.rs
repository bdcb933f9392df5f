//! The training loop as a library.
#![deny(missing_docs)]

mod backward;
mod buckets;
mod checkpoint;
mod data;
mod ema;
mod error;
mod event;
mod feed;
mod guardian;
mod learning_rate;
mod network;
mod objective;
mod random;
mod run;
mod stop;
#[cfg(test)]
mod tests;
mod timesteps;
mod trainer;
mod validation;
pub mod watch;

pub use buckets::{BUCKETS, BucketLosses, SampleLoss};
pub use error::TrainError;
pub use event::{
    Event, Losses, Observer, ObserverError, Remedy, StepReport, Unobserved, ValidationReport, WindowReport,
};
pub use guardian::{NonFiniteReport, Stage};
pub use run::{Outcome, Run};
pub use stop::StopRequest;
