//! Downloads that lose no byte: resume, verify, convert the catalogue's checkpoints.
