//! Checkpoint files without libtorch: safetensors, PyTorch pickles, layouts, conversion; strict loading behind the tch feature.

#![deny(missing_docs)]

mod atomic;
mod dtype;
mod error;
mod source;

pub use dtype::Dtype;
pub use error::Error;
pub use source::{TensorInfo, TensorSource, TensorView};
