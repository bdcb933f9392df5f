use tch::Tensor;

use crate::attention::Shape;

/// softmax(q·kᵀ / √(D/H))·v for each of H heads. `None` where there is no kernel for it: other kinds, another device, another
/// CPU, more than 8,192 tokens, in bf16 heads of an odd number of values.
///
/// # Shapes
/// `qkv` (N, T, 3D) → (N, T, D).
pub(crate) fn self_attention(qkv: &Tensor, heads: i64) -> Option<Tensor> {
    let shape = Shape::of(qkv, heads)?;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Some(kernels::self_attention(qkv, shape));
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = shape;
        None
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod kernels;
#[cfg(target_arch = "x86_64")]
mod products;
