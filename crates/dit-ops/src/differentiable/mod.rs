//! Operators of this crate that libtorch differentiates through: forward and backward pass are kernels, for weights that change from step to
//! step. Each gives `None` where it has no kernel for what it is given.

mod attention;
mod gate;
mod gelu;
mod linear;
mod norm;
mod tokens;

pub(crate) use attention::self_attention;
pub(crate) use gate::add_gated;
pub(crate) use linear::linear;
pub(crate) use norm::layer_norm_modulate;
