//! What libtorch does and tch does not reach, through some C++: operators written in Rust that it differentiates through
//! ([`differentiable`]), and operators over [lists] of tensors. For GPUs [`bring`], by which tensors come to one that nobody waits for, and
//! [`Graph`], by which it is given again what it was given before.
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod bring;
mod capture;
mod crossing;
mod graph;
pub mod lists;

pub use bring::bring;
pub use capture::{Graph, is_recording};
pub use graph::{backward, differentiable, forget_gradient, grad_is_enabled};
