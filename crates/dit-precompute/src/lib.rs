//! Pictures to latent shards, while every part of the machine works.
//!
//! ```text
//! records → threads that decode and crop → window → batches → VAE → journal → shard → writer thread
//! ```
//! Decoding runs ahead of encoding by a bounded window and is put back into order there; encoding never waits for a shard to
//! reach the disk. What comes out is a function of the records and the settings alone: neither the number of threads nor an
//! interruption shows in it.
//!
//! Threads that decode never touch libtorch. They are plain threads and not a pool's: one that runs ahead waits, and a
//! pool's thread must not. Nothing here reads arguments, prints, or knows where a picture comes from ([`Records`]).
//!
//! ```
//! use dit_config::{VaeConfig, VaeSpec};
//! use dit_data::{CropRecipe, Rgb, shard::*};
//! use dit_precompute::{Picture, PictureError, Records, RunOptions, run};
//! use dit_vae::{AutoencoderKl, Kernels};
//! use tch::{Device, Kind, Tensor};
//!
//! struct Greys;
//! impl Records for Greys {
//!     fn key(&self, index: u64) -> String { format!("grey {index}") }
//!     fn label(&self, index: u64) -> i64 { index as i64 % 2 }
//!     fn picture(&self, index: u64) -> Result<Picture<'_>, PictureError> {
//!         Ok(Rgb::new(20, 16, vec![index as u8; 20 * 16 * 3]).unwrap().into())
//!     }
//! }
//!
//! let config = VaeConfig::new(VaeSpec { block_out_channels: vec![8, 16], norm_num_groups: 4, ..VaeSpec::default() })?;
//! let random = |shape: &[usize]| {
//!     let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
//!     Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.1
//! };
//! let weights = config.tensors().into_iter().map(|spec| (spec.name, random(&spec.shape))).collect();
//! let codec = AutoencoderKl::from_tensors(config.clone(), weights, Device::Cpu, Kind::Float, Kernels::Fused)?;
//!
//! let settings = Settings {
//!     image_size: 16,
//!     crop: CropRecipe::Adm,
//!     flips: Flips::Both,
//!     store: Store::F16,
//!     shard_size: 4,
//!     vae: VaeIdentity { name: "random".into(), sha256: String::new(), config },
//!     source: SourceIdentity { fingerprint: "greys".into(), records: 10 },
//!     encoding: Encoding { device: "cpu".into(), precision: EncodingPrecision::Fp32, threads: 1, batch_size: 2 },
//! };
//! let folder = tempfile::tempdir()?;
//! let writer = FolderWriter::open(folder.path(), settings, vec!["even".into(), "odd".into()])?;
//! let report = run(&Greys, &codec, writer, &RunOptions::default(), &mut |_| {})?;
//! assert_eq!(report.manifest.shards.len(), 3);
//!
//! let latents = LatentFolder::open_verified(folder.path())?;
//! assert_eq!((latents.len(), latents.label(7)), (10, Some(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod encode;
mod error;
mod records;
mod room;
mod run;
mod window;

pub use error::Error;
pub use records::{Picture, PictureError, Records, SourceRecords};
pub use run::{Progress, Report, RunOptions, run};
