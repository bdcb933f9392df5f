//! The diffusion transformer, DiT, on libtorch.
