//! A classifier of noised latents: what classifier guidance (Dhariwal & Nichol 2021) differentiates.
//!
//! [`Classifier`] is a small transformer over latents with its own timestep embedding; its tokens' mean goes through a LayerNorm
//! and a Linear. `Training` (feature `training`, on by default) fits it to latents noised uniformly in t, and continues exactly where it
//! was stopped.
//! [`Classifier::save`] and [`Classifier::load`] keep it in a safetensors file that says what it is; loading is strict.
//!
//! It reads no arguments, prints nothing, and guides nothing itself: [`Classifier::towards`] is a
//! [`LogProbGradient`](dit_diffusion::LogProbGradient) for [`ClassifierGuided`](dit_diffusion::ClassifierGuided).
//!
//! ```
//! use dit_classifier::{Classifier, ClassifierSpec};
//! use dit_diffusion::{LogProbGradient, Timestep};
//! use tch::{Device, Kind, Tensor};
//!
//! let spec = ClassifierSpec { hidden: 32, depth: 1, heads: 2, patch: 2, in_channels: 4, latent: [8, 8], num_classes: 10 };
//! let classifier = Classifier::new(&spec, 0, Device::Cpu)?;
//! let x = Tensor::randn([2, 4, 8, 8], (Kind::Float, Device::Cpu));
//! let t = Tensor::from_slice(&[0_i64, 999]);
//! assert_eq!(classifier.forward(&x, &t).size(), [2, 10]); // logits
//!
//! let labels = Tensor::from_slice(&[3_i64, 7]);
//! let gradient = classifier.towards(&labels).gradient(&x, Timestep(500)).unwrap();
//! assert_eq!(gradient.size(), x.size());
//! # Ok::<(), dit_classifier::Error>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

#[cfg(feature = "training")]
mod accuracy;
mod classifier;
mod error;
mod file;
#[cfg(feature = "training")]
mod noising;
mod spec;
#[cfg(feature = "training")]
mod state;
#[cfg(feature = "training")]
mod training;

#[cfg(feature = "training")]
pub use accuracy::{Bucket, accuracy};
pub use classifier::Classifier;
pub use error::Error;
pub use file::About;
pub use spec::ClassifierSpec;
#[cfg(feature = "training")]
pub use training::{StepReport, Training, TrainingOptions};
