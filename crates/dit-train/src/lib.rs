//! The training loop as a library.
//!
//! A [`Run`] is a recipe, a folder of latents, and a folder that one process writes to. [`Run::start`] begins it, [`Run::resume`]
//! continues it from its newest checkpoint, [`Run::train`] trains, tells an [`Observer`] what happens ([`Event`]) and ends at the last
//! step or when a [`StopRequest`] says so.
//!
//! - **Exact.** A step is PyTorch's, with the recipe's defaults those of the original. Every random number is a function of seed,
//!   step and purpose, so a run that was killed and resumed ends in the bytes of one that was not (on a CPU, with as many threads).
//! - **Safe.** A checkpoint appears whole or not at all, with hashes; a full disk costs a checkpoint, not the run; an error leaves a
//!   checkpoint of the last whole step.
//! - **Guarded.** A loss or gradient that is no number is traced to the record, block or tensor that it came from
//!   ([`NonFiniteReport`]), and handled as the recipe says.
//!
//! [`watch`] has observers that write logs, charts and grids. This crate never prints, reads arguments, installs signal handlers or
//! touches libtorch's global generator.
//!
//! ```no_run
//! use dit_recipe::Recipe;
//! use dit_train::{Outcome, Run, StopRequest, Unobserved};
//! use tch::Device;
//!
//! let recipe = Recipe::from_toml(&std::fs::read_to_string("configs/fashion.toml")?, &[])?;
//! let mut run = Run::start(&recipe, "latents".as_ref(), "run".as_ref(), Device::Cpu)?;
//! let stop = StopRequest::new(); // hand a clone to a signal handler
//! match run.train(&mut Unobserved, &stop)? {
//!     Outcome::Finished { checkpoint, .. } => println!("sample from {}", checkpoint.display()),
//!     Outcome::Stopped { step, .. } => println!("{step} steps are taken; Run::resume takes the rest"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod attempt;
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
mod window;

pub use attempt::panics_are_survived;
pub use buckets::{BUCKETS, BucketLosses, SampleLoss};
pub use checkpoint::StoredWeights;
pub use ema::EmaLag;
pub use error::TrainError;
pub use event::{
    EvaluationReport, Evaluator, Event, Losses, Measurement, Observer, ObserverError, Remedy, StepReport, Unobserved,
    ValidationReport, WindowReport,
};
pub use guardian::{NonFiniteReport, Stage};
pub use run::{Outcome, Run, refuse_changes};
pub use stop::StopRequest;
