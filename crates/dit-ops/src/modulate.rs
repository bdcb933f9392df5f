use tch::Tensor;

use crate::differentiable;

/// LayerNorm(x)·(1 + scale) + shift in one pass, and its gradients in another: adaptive layer normalisation, computed in fp32, rounded once to
/// the kind of `shift` and `scale`; `x` may be fp32 where they are bf16.
///
/// libtorch's operators on another device or kind.
///
/// # Shapes
/// `x` (N, T, D); `shift` and `scale` (N, 1, D), one for each sample → (N, T, D).
pub fn layer_norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Tensor {
    differentiable::layer_norm_modulate(x, shift, scale, eps)
        .unwrap_or_else(|| plain_layer_norm_modulate(x, shift, scale, eps))
}

/// [`layer_norm_modulate`] by libtorch's operators, which round after each.
///
/// # Shapes
/// As [`layer_norm_modulate`].
pub fn plain_layer_norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Tensor {
    let width = x.size().last().copied().unwrap_or(1);
    let cudnn = true;
    let normal = x.layer_norm([width], None::<Tensor>, None::<Tensor>, eps, cudnn);
    shift.addcmul(&normal, &(scale + 1.0))
}

/// x + gate·y in one pass, and its gradients in another: a residual branch, computed in fp32, rounded once to the kind of `x`, which may
/// be fp32 where the others are bf16.
///
/// libtorch's operators on another device or kind.
///
/// # Shapes
/// `x` and `y` (N, T, D); `gate` (N, 1, D), one for each sample → (N, T, D).
pub fn add_gated(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    differentiable::add_gated(x, gate, y).unwrap_or_else(|| plain_add_gated(x, gate, y))
}

/// The same, but on another device or kind by one operator of libtorch's, which rounds once, too. Not for training: its backward pass reads and
/// writes more, and computes branches that are of another kind than `x` in the wider one.
///
/// # Shapes
/// As [`add_gated`].
pub(crate) fn add_gated_in_one(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    differentiable::add_gated(x, gate, y).unwrap_or_else(|| x.addcmul(gate, y))
}

/// [`add_gated`] by libtorch's operators, which round after each.
///
/// # Shapes
/// As [`add_gated`].
pub fn plain_add_gated(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    x + gate * y
}
