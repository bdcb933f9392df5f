//! What a DiT and its VAE are on paper: geometry, names and shapes of their tensors, what they cost.
//!
//! Plain data and arithmetic, no tensors: a program that only inspects, converts or plans needs no libtorch.
//! It never reads a file and never computes a network.
//!
//! ```
//! use dit_config::DitConfig;
//! let config: DitConfig = "DiT-XL/2".parse()?;
//! assert_eq!(config.parameters(), 675_129_632);
//! assert_eq!(config.tensors().len(), 292);
//! # Ok::<(), dit_config::ConfigError>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod block;
mod cost;
mod dit;
mod error;
mod process;
mod standard;
mod tensors;
mod vae;
mod vae_tensors;

pub use block::BlockDesign;
pub use dit::{DitConfig, DitSpec, LatentSize, Numerics, Sigma};
pub use error::ConfigError;
pub use process::{NoiseScheduleKind, Predict, Process, SigmaKind};
pub use standard::{Size, StandardModel};
pub use tensors::TensorSpec;
pub use vae::{VaeConfig, VaeSpec};
