use dit_autograd::differentiable;
use tch::{Kind, Tensor};

use crate::{
    attention::{Shape, merge_heads, split_heads},
    cpu::Cpu,
    gemm::Words,
};

/// Longest sequence for a kernel of ours: a head's weights and their gradients, T², are held by each thread at once.
const MOST_TOKENS: usize = 1536;

/// softmax(q·kᵀ / √(D/H))·v for each of H heads. `None` where there is no kernel for it: other kinds, another device, another CPU; in bf16
/// sequences that are longer, or of an odd number of tokens.
///
/// In fp32 without AVX-512, and of longer sequences, it is libtorch's kernel (16 samples of 256 tokens, 6 heads of 64, two Zen 3 cores:
/// 75 ms forward and backward, ours 95), but for the gradient of `qkv`, which is made in one piece.
///
/// # Shapes
/// `qkv` (N, T, 3D) → (N, T, D).
pub(crate) fn self_attention(qkv: &Tensor, heads: i64) -> Option<Tensor> {
    let shape = Shape::of(qkv, heads)?;
    let long = shape.tokens > MOST_TOKENS;
    match qkv.kind() {
        Kind::Float if long || !Words::F32.in_avx512(Cpu::detect()) => Some(by_libtorch(qkv, heads)),
        Kind::BFloat16 if long || !shape.tokens.is_multiple_of(2) => None,
        _ => by_own_kernel(qkv, shape),
    }
}

/// By libtorch's kernel for CPUs. Its own graph would make of each of the three gradients one of `qkv`, zeros but for a third, and add them.
fn by_libtorch(qkv: &Tensor, heads: i64) -> Tensor {
    // The kernel takes for granted that a token's values lie side by side.
    let kept = qkv.detach().contiguous();
    let [q, k, v] = split_heads(&kept, heads); // (N, H, T, D/H) each
    let (dropout, causal, mask, scale) = (0.0, false, None::<&Tensor>, None);
    let (output, logsumexp) =
        Tensor::internal_scaled_dot_product_flash_attention_for_cpu(&q, &k, &v, dropout, causal, mask, scale);
    let result = merge_heads(&output);
    let backward = move |gradient: Tensor, _: &[bool]| {
        let gradient = gradient.unflatten(2, [heads, -1]).transpose(1, 2); // (N, H, T, D/H)
        let (of_q, of_k, of_v) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            &gradient,
            &q,
            &k,
            &v,
            &output,
            &logsumexp,
            dropout,
            causal,
            None::<&Tensor>,
            scale,
        );
        let of_qkv = kept.empty_like();
        for (mut place, part) in split_heads::<3>(&of_qkv, heads).into_iter().zip([of_q, of_k, of_v]) {
            place.copy_(&part);
        }
        vec![Some(of_qkv)]
    };
    differentiable("SelfAttention", &[qkv], result, backward)
}

#[cfg(target_arch = "x86_64")]
fn by_own_kernel(qkv: &Tensor, shape: Shape) -> Option<Tensor> {
    x86::self_attention(qkv, shape)
}

#[cfg(not(target_arch = "x86_64"))]
fn by_own_kernel(_: &Tensor, _: Shape) -> Option<Tensor> {
    None
}

#[cfg(target_arch = "x86_64")]
mod x86;
