//! Which instructions attention and its backward pass take.

use dit_autograd::differentiable;
use tch::{Kind, Tensor};

use super::products;
use crate::{
    attention::{
        Shape, flash,
        x86::{flash_attention, pull_back},
    },
    cpu::Cpu,
    element::needs_gradient,
};

/// As [`super::self_attention`], where there is a kernel.
pub(super) fn self_attention(qkv: &Tensor, shape: Shape) -> Tensor {
    if qkv.kind() == Kind::BFloat16 && Cpu::detect().amx && products::fits(shape) {
        return products::self_attention(qkv, shape);
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
