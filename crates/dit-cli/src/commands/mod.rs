//! One file a command.

pub mod completions;
pub mod convert;
pub mod inspect;
pub mod latents;
pub mod precompute;
pub mod sample;
pub mod train;
pub mod train_features;
