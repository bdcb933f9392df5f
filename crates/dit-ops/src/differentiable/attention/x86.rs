//! Which instructions attention and its backward pass take.

use dit_autograd::differentiable;
use tch::{Kind, Tensor};

use super::avx512;
use crate::{
    attention::{Shape, avx2},
    cpu::Cpu,
    element::{Bf16, Element, needs_gradient},
    gemm::Words,
};

/// As [`super::self_attention`].
pub(super) fn self_attention(qkv: &Tensor, shape: Shape) -> Option<Tensor> {
    let cpu = Cpu::detect();
    let fits = shape.tokens <= avx512::MOST_TOKENS;
    match qkv.kind() {
        Kind::Float if fits && Words::F32.in_avx512(cpu) => avx512::self_attention::<f32>(qkv, shape),
        Kind::Float => Some(with_avx2::<f32>(qkv, shape)),
        _ if !Words::Bf16.in_avx512(cpu) => Some(with_avx2::<Bf16>(qkv, shape)),
        _ if fits && shape.tokens.is_multiple_of(2) => avx512::self_attention::<Bf16>(qkv, shape),
        _ => None,
    }
}

/// Also where there is AVX-512, of sequences that are too long for its kernel (not measured there).
fn with_avx2<E: Element>(qkv: &Tensor, shape: Shape) -> Tensor {
    let kept = qkv.detach().contiguous();
    let (output, for_backward) = avx2::self_attention::<E>(&kept, shape, needs_gradient(&[qkv]));
    let Some(for_backward) = for_backward else { return output };
    // Not the tensor itself, which will hold what holds this.
    let kept_output = output.detach();
    let backward = move |gradient: Tensor, _: &[bool]| {
        let gradient = gradient.contiguous();
        let given = avx2::Given { shape, qkv: &kept, output: &kept_output, gradient: &gradient, kept: &for_backward };
        vec![Some(avx2::pull_back::<E>(&given))]
    };
    differentiable("SelfAttention", &[qkv], output, backward)
}
