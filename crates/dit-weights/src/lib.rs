//! Checkpoint files without libtorch: reading, checking, converting and writing the weights of DiTs and their VAEs.
//!
//! [`Checkpoint::open`] and [`VaeCheckpoint::open`] take any file or folder in which such weights exist: safetensors, PyTorch's
//! `torch.save` (plain state dicts and training checkpoints), diffusers' folders, in the original's layout or diffusers'. They
//! find the configuration, compare every name and shape with it, and give the tensors under one set of names. Values stay in
//! the memory-mapped file until they are read.
//!
//! The parts are of use alone: [`SafetensorsFile`] and [`TorchFile`] read one format each, [`write_safetensors`] and
//! [`torch_save`] write one tensor at a time, [`convert`] goes from anything to anything, [`infer_config`] finds a
//! configuration, [`check_tensors`] compares. All speak through [`TensorSource`]. With the feature `tch`, `load_into` copies a
//! source into a libtorch model.
//!
//! This crate never executes anything of a file, never trusts a length in one, and never computes a network.
//!
//! ```
//! use dit_weights::{SafetensorsFile, TensorSource, TensorView, write_safetensors};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("tiny.safetensors");
//! let source = dit_weights::MemorySource::from_iter([("bias", TensorView::from_f32(vec![2], &[0.5, -1.0])?)]);
//! write_safetensors(&path, &source, &Default::default())?;
//!
//! let file = SafetensorsFile::open(&path)?;
//! assert_eq!(file.read("bias")?.to_f32()?, [0.5, -1.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod cast;
mod check;
mod checkpoint;
mod convert;
mod digest;
mod dtype;
mod error;
mod file_bytes;
mod folder;
mod hints;
mod infer;
mod layout;
mod memory;
mod metadata;
mod network;
mod non_finite;
mod read_ahead;
mod safetensors_file;
mod safetensors_header;
mod sharded;
mod source;
#[cfg(feature = "tch")]
mod tch_load;
mod torch_pickle;
pub mod torch_save;
mod vae_checkpoint;
mod weights;
mod writer;

pub use cast::{CastSource, cast};
pub use check::{Mismatch, check_tensors};
pub use checkpoint::{Checkpoint, OpenOptions};
pub use convert::{ConvertOptions, Converted, Progress, convert, is_file_ending};
pub use digest::{Digest, sha256_of};
pub use dit_config::{
    BlockDesign, ConfigError, DitConfig, DitSpec, LatentSize, NoiseScheduleKind, Numerics, Predict, Process, Sigma,
    SigmaKind, Size, StandardModel, TensorSpec, VaeConfig, VaeSpec,
};
pub use dit_files::WriteError;
pub use dtype::Dtype;
pub use error::Error;
pub use hints::Hints;
pub use infer::{infer_config, looks_like};
pub use layout::{Layout, position_table};
pub use memory::MemorySource;
pub use metadata::{Codec, Metadata, ModelConfig, Origin, WeightsKind};
pub use network::Network;
pub use non_finite::{count_non_finite, find_non_finite};
pub use safetensors_file::SafetensorsFile;
pub use source::{TensorInfo, TensorSource, TensorView};
#[cfg(feature = "tch")]
pub use tch_load::{NonFinite, TchSource, kind_of, load_into, tensor_of, to_tensor};
pub use torch_pickle::{Kind, StateDict, TorchFile, Value};
pub use vae_checkpoint::VaeCheckpoint;
pub use writer::write_safetensors;
