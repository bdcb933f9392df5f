//! Image folders and archives to latent shards.
