//! Everything this crate promises, in one binary: parity with the reference tensors of `tests/fixtures/diffusion`, and
//! properties that no reference is needed for.

mod classifiers;
mod convergence;
mod errors;
mod fixtures;
mod gaussian;
mod guidance;
mod losses;
mod noise;
mod parameterizations;
mod sampling;
mod schedules;
mod solvers;
mod steps;
