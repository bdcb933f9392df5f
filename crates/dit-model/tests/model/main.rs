//! The model against published tensors, the mathematics, and what must hold for any weights.

mod carried;
mod common;
mod initialisation;
mod input;
mod load;
mod names;
mod parity;
mod properties;
mod xl;
