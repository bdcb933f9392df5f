//! What libtorch does and tch does not reach, through some C++: operators written in Rust that it differentiates through
//! ([`differentiable`]), and operators over [lists] of tensors. And [`bring`], by which tensors come to a GPU that nobody waits for.
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod bring;
mod crossing;
mod graph;
pub mod lists;

pub use bring::bring;
pub use graph::{backward, differentiable, forget_gradient, grad_is_enabled};
