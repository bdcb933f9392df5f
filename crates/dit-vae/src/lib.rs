//! The latent codec: AutoencoderKL on libtorch.
