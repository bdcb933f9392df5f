//! libtorch operators that tch does not bind, and fused kernels.
#![deny(missing_docs)]
