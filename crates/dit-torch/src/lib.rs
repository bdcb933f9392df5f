//! What libtorch does and tch does not reach, through two files of C++: operators written in Rust that it differentiates through
//! ([`differentiable`]), and operators over [lists] of tensors.
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod crossing;
mod graph;
pub mod lists;

pub use graph::{backward, differentiable, forget_gradient, grad_is_enabled};
