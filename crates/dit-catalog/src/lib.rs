//! The catalogue of known checkpoints (weights/manifest.json): names to files.
