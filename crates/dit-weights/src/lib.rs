//! Checkpoint files without libtorch: safetensors, PyTorch pickles, layouts, conversion; strict loading behind the tch feature.

#![deny(missing_docs)]

mod atomic;
mod dtype;
mod error;
mod source;
mod torch_pickle;
pub mod torch_save;

pub use dtype::Dtype;
pub use error::Error;
pub use source::{TensorInfo, TensorSource, TensorView};
pub use torch_pickle::{Kind, StateDict, TorchFile, Value};
