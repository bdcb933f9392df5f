use tch::{Device, Kind, Tensor};

use crate::{
    cpu::Cpu,
    element::{is_readable, needs_gradient},
    packed::words_of,
};

/// Longest sequence that the kernels take: sixteen to 32 queries' scores have to stay in the second-level cache.
const MOST_TOKENS: usize = 8192;

/// Longest sequence, in tokens, for which two bf16 matrix products around a softmax were measured to be faster than libtorch's
/// fused kernel.
const TWO_PRODUCTS_TOKENS: i64 = 512;

/// Most scores that two products may keep for a backward pass: 64 MB in bf16. Beyond it libtorch's fused kernel, which keeps none.
const MOST_KEPT_SCORES: i64 = 1 << 25;

/// Multi-head self-attention, softmax(q·kᵀ / √(D/H))·v for each of H heads, from queries, keys and values as one Linear gives them.
///
/// Where the CPU has the instructions: a kernel of this crate, whose scores and softmax are fp32, and whose weights are rounded to
/// the tensor's kind (by AMX and AVX-512 BF16; where bf16 is widened for its products, they stay fp32). Else [`plain_attention`].
///
/// # Shapes
/// `qkv` (N, T, 3D) → (N, T, D).
pub fn self_attention(qkv: &Tensor, heads: i64) -> Tensor {
    if !needs_gradient(&[qkv])
        && let Some(result) = fused(qkv, heads)
    {
        return result;
    }
    plain_self_attention(qkv, heads)
}

/// [`self_attention`] by [`plain_attention`].
///
/// # Shapes
/// As [`self_attention`].
pub(crate) fn plain_self_attention(qkv: &Tensor, heads: i64) -> Tensor {
    let [q, k, v] = split_heads(qkv, heads); // (N, H, T, D/H) each
    merge_heads(&plain_attention(&q, &k, &v))
}

/// (N, T, PARTS·D) → PARTS times (N, H, T, D/H).
pub fn split_heads<const PARTS: usize>(x: &Tensor, heads: i64) -> [Tensor; PARTS] {
    let x = x.unflatten(2, [PARTS as i64, heads, -1]); // (N, T, PARTS, H, D/H)
    // One gradient is stacked from all parts', where each part selected would have one of its own, mostly of zeros.
    let mut parts = x.unbind(2).into_iter();
    std::array::from_fn(|_| parts.next().expect("there are PARTS").transpose(1, 2)) // (N, H, T, D/H) each
}

/// (N, H, T, D/H) → (N, T, D).
pub fn merge_heads(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}

/// softmax(q·kᵀ / √(D/H))·v by libtorch's operators.
///
/// Its fused kernel, but for bf16 on a CPU over short sequences. Measured there on two Zen 5 cores, 16 heads of 72, two
/// samples: 256 tokens 4.3 ms fused, 1.7 ms as two products; 1024 tokens 56 ms either way. In fp32 the fused kernel takes half
/// the time of two products. Where gradients flow in bf16, DiT-S/2's step takes 1.0 s with two products and 1.4 s with the
/// fused kernel, whose backward pass makes a oneDNN product for every head of every sample.
///
/// # Shapes
/// `q` (N, H, T, D/H); `k`, `v` (N, H, S, D/H) → (N, H, T, D/H).
pub fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let tokens = q.size()[2];
    let scores = q.size()[0] * q.size()[1] * tokens * k.size()[2];
    // The same with a gradient and without: what is computed again for its gradient must be what was computed before.
    let affordable = scores <= MOST_KEPT_SCORES;
    if q.device() == Device::Cpu && q.kind() == Kind::BFloat16 && affordable && tokens <= TWO_PRODUCTS_TOKENS {
        two_products(q, k, v)
    } else {
        let (dropout, causal, grouped) = (0.0, false, false);
        Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, dropout, causal, None, grouped)
    }
}

/// Two matrix products around a softmax; its scores are rounded to the tensors' kind.
fn two_products(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let scale = 1.0 / (q.size()[3] as f64).sqrt();
    let weights = (q * scale).matmul(&k.transpose(2, 3)).softmax(-1, None); // (N, H, T, S)
    weights.matmul(v) // (N, H, T, D/H)
}

/// The sizes of a (N, T, 3·H·head) tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub samples: usize,
    pub tokens: usize,
    pub heads: usize,
    /// Values of one head.
    pub head: usize,
}

impl Shape {
    /// Of `qkv`, if there are kernels for it on this CPU.
    pub(crate) fn of(qkv: &Tensor, heads: i64) -> Option<Self> {
        let words = words_of(qkv.kind())?;
        let &[samples, tokens, width] = qkv.size().as_slice() else { return None };
        let usable = is_readable(qkv) && words.supported(Cpu::detect());
        if !usable || samples < 1 || tokens < 1 || heads < 1 || width % (3 * heads) != 0 {
            return None;
        }
        let shape = Self {
            samples: usize::try_from(samples).ok()?,
            tokens: usize::try_from(tokens).ok()?,
            heads: usize::try_from(heads).ok()?,
            head: usize::try_from(width / (3 * heads)).ok()?,
        };
        // A word is not to straddle two heads.
        let fits = shape.tokens <= MOST_TOKENS && shape.head > 0 && shape.head.is_multiple_of(words.elements());
        fits.then_some(shape)
    }
}

/// The kernel's result, where there is one for this tensor on this CPU. Nothing is recorded for a gradient.
pub(crate) fn fused(qkv: &Tensor, heads: i64) -> Option<Tensor> {
    let shape = Shape::of(qkv, heads)?;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Some(heads::self_attention(&qkv.contiguous(), shape));
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = shape;
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod exponential;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod flash;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod heads;
#[cfg(target_arch = "x86_64")]
pub(crate) mod softmax;
