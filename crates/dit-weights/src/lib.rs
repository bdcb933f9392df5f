//! Checkpoint files without libtorch: safetensors, PyTorch pickles, layouts, conversion; strict loading behind the tch feature.
