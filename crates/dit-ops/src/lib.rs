//! libtorch operators that tch does not bind, and fused kernels.
#![deny(missing_docs)]

mod adamw;
mod dispatcher;
mod error;
mod symbols;

pub use adamw::{AdamW, AdamWKernel, AdamWOptions};
pub use dispatcher::{Argument, Dispatcher};
pub use error::OpsError;
