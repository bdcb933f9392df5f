//! The diffusion transformer (DiT; Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", arXiv 2212.09748)
//! on libtorch: one network that maps a noised latent, its timestep and its class to the noise in it.
//!
//! All four block designs of the paper's figure 3, learned and fixed sigma, any size, any latent (square or not).
//! [`Dit::forward`] is a function of its three arguments and the weights: no random numbers, no training mode, no
//! diffusion schedule and no guidance. Dropping labels is a step of training; guiding is a caller that evaluates twice.
//! Nothing here reads arguments, prints, or finds files: [`Dit::load`] takes a checkpoint that [`dit_weights`] has opened.
//!
//! [`GraphedDit`] is for sampling on a GPU: the same passes, replayed as CUDA graphs.
//!
//! A model is [`Send`] and not [`Sync`], as [`tch::Tensor`] is: one for each thread, or one behind a [`Mutex`](std::sync::Mutex).
//!
//! ```
//! use dit_model::{Dit, DitConfig, Initialization};
//! use tch::{Device, Kind, Tensor, nn};
//!
//! let config = "DiT-S/8".parse::<DitConfig>()?.with(|spec| spec.depth = 2)?;
//! let store = nn::VarStore::new(Device::Cpu);
//! let dit = Dit::new(&store.root(), &config, Initialization::Reference { seed: 0 });
//!
//! let x = Tensor::randn([2, 4, 32, 32], (Kind::Float, Device::Cpu));
//! let t = Tensor::from_slice(&[999_i64, 500]);
//! let labels = Tensor::from_slice(&[207_i64, 1000]); // a golden retriever, and the null class
//! let output = dit.try_forward(&x, &t, &labels)?;
//! assert_eq!(output.size(), [2, 8, 32, 32]); // the noise, then the variance's interpolation coefficient
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod attention;
mod block;
mod dit;
mod error;
mod final_layer;
mod graphed;
mod init;
mod input;
mod label;
mod load;
mod mlp;
mod modulation;
mod norm;
mod patchify;
mod position;
mod shelf;
mod timestep;
mod trunk;

pub use attention::{CrossAttention, SelfAttention};
pub use block::{AdaLnBlock, AdaLnZeroBlock, Block, CrossAttentionBlock, InContextBlock};
pub use dit::Dit;
pub use dit_config::{
    BlockDesign, ConfigError, DitConfig, DitSpec, LatentSize, Numerics, Process, Sigma, Size, StandardModel, TensorSpec,
};
pub use dit_ops::{Cpu, Kernels};
pub use error::ModelError;
pub use final_layer::FinalLayer;
pub use graphed::GraphedDit;
pub use init::Initialization;
pub use label::LabelEmbedder;
pub use mlp::Mlp;
pub use modulation::{AdaptiveNorm, Branch, Modulation};
pub use patchify::{PatchEmbedder, unpatchify};
pub use position::position_table;
pub use timestep::TimestepEmbedder;
pub use trunk::Trunk;
