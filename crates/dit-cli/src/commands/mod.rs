//! One file a command.

pub mod calibrate_cache;
pub mod completions;
pub mod convert;
pub mod evaluate;
pub mod inspect;
pub mod latents;
pub mod precompute;
mod resumable;
pub mod sample;
pub mod train;
pub mod train_classifier;
pub mod train_features;
