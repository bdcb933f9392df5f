//! The training loop as a library.
#![deny(missing_docs)]

mod buckets;
mod error;
mod event;
mod guardian;
mod stop;
pub mod watch;

pub use buckets::{BUCKETS, BucketLosses, SampleLoss};
pub use error::TrainError;
pub use event::{
    Event, Losses, Observer, ObserverError, Remedy, StepReport, Unobserved, ValidationReport, WindowReport,
};
pub use guardian::{NonFiniteReport, Stage};
pub use stop::StopRequest;
