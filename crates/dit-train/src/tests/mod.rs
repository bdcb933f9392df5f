//! Tests of what the crate does not show: single steps and gradients.

mod activations;
mod guardian;
mod reference_steps;
pub(crate) mod support;
