//! Tests of what the crate does not show: single steps and gradients.

mod activations;
mod reference_steps;
mod support;
