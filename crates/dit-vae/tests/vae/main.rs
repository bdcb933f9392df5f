//! The autoencoder against diffusers' numbers, its properties, and what it refuses.

mod errors;
mod kernels;
mod loading;
mod memory;
mod parity;
mod precision;
mod properties;
mod support;
mod tiled;
