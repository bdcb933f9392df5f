//! What a DiT and its VAE are on paper: geometry, tensor names and shapes, parameter and multiply-accumulate counts.
