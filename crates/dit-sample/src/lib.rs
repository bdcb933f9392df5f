//! From a sampling request to latents and pictures: the pipeline over model, diffusion and VAE.
