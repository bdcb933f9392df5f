//! Which instructions attention and its backward pass take.

use dit_torch::differentiable;
use tch::Tensor;

use crate::{
    attention::{
        Shape, flash,
        heads::{flash_attention, pull_back},
    },
    element::needs_gradient,
};

/// As [`super::self_attention`], where there is a kernel.
pub(super) fn self_attention(qkv: &Tensor, shape: Shape) -> Tensor {
    #[cfg(target_arch = "x86_64")]
    if qkv.kind() == tch::Kind::BFloat16 && crate::cpu::Cpu::detect().amx && super::products::fits(shape) {
        return super::products::self_attention(qkv, shape);
    }
    let kept = qkv.detach().contiguous();
    let (output, for_backward) = flash_attention(&kept, shape, needs_gradient(&[qkv]));
    let Some(for_backward) = for_backward else { return output };
    // Not the tensor itself, which will hold what holds this.
    let kept_output = output.detach();
    let backward = move |gradient: Tensor, _: &[bool]| {
        let gradient = gradient.contiguous();
        let given = flash::Given { shape, qkv: &kept, output: &kept_output, gradient: &gradient, kept: &for_backward };
        vec![Some(pull_back(&given))]
    };
    differentiable("SelfAttention", &[qkv], output, backward)
}
