//! The latent codec: images to latents and back, by the KL autoencoder of latent diffusion on libtorch.
//!
//! Three types keep apart what is easily mixed up: [`Moments`], the posterior that an encoder gives; [`RawLatents`],
//! a draw from it; [`Latents`], what the diffusion model sees. Only [`LatentScale`] leads from the second to the third
//! and back. [`Sliced`] and [`Tiled`] wrap a codec to bound its memory.
//!
//! This crate never draws random numbers, never trains, never reads an image file, and assumes no scale factor: that
//! comes from the configuration.
//!
//! ```
//! use dit_config::{VaeConfig, VaeSpec};
//! use dit_vae::{AutoencoderKl, Kernels, LatentCodec};
//! use tch::{Device, Kind, Tensor};
//!
//! let widths = vec![8, 16];
//! let config = VaeConfig::new(VaeSpec { block_out_channels: widths, norm_num_groups: 4, ..VaeSpec::default() })?;
//! let random = |shape: &[usize]| {
//!     let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
//!     Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.1
//! };
//! let weights = config.tensors().into_iter().map(|spec| (spec.name, random(&spec.shape))).collect();
//! let codec = AutoencoderKl::from_tensors(config, weights, Device::Cpu, Kind::Float, Kernels::Fused)?;
//!
//! let _no_grad = tch::no_grad_guard();
//! let moments = codec.encode(&Tensor::zeros([1, 3, 32, 48], (Kind::Float, Device::Cpu)))?;
//! let raw = moments.sample(&Tensor::randn_like(moments.mean()))?;
//! let latents = codec.latents(&raw); // what a diffusion model is trained on
//! assert_eq!(latents.tensor().size(), [1, 4, 16, 24]);
//! assert_eq!(codec.decode(&latents)?.size(), [1, 3, 32, 48]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod attention;
mod autoencoder;
mod codec;
mod decoder;
mod encoder;
mod error;
mod features;
mod latents;
mod layers;
mod middle;
mod moments;
mod pictures;
mod resampling;
mod resnet;
mod sliced;
mod tiled;
mod tiling;
mod weights;

pub use autoencoder::AutoencoderKl;
pub use codec::LatentCodec;
pub use dit_ops::Kernels;
pub use error::Error;
pub use latents::{LatentScale, Latents, RawLatents};
pub use moments::Moments;
pub use pictures::{Decoded, decode_each};
pub use sliced::Sliced;
pub use tiled::Tiled;
pub use tiling::Tiling;
