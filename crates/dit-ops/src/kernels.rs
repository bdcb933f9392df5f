use tch::Tensor;

use crate::{
    Cpu, add_gated, attention::plain_self_attention, differentiable, gemm::Words, layer_norm_modulate,
    modulate::add_gated_in_one, plain_add_gated, plain_layer_norm_modulate, self_attention,
};

/// How a network's Linears and what lies between them are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// By libtorch's operators, one after another: differentiable, and the same on every machine.
    #[default]
    Plain,
    /// The fastest that gradients flow through, for weights that change: on a CPU with AVX2, AVX-512 or NEON those of this crate, forward and
    /// backward; what has none falls back to libtorch's operators.
    Differentiable,
    /// The fastest of the weights' kind: the same mathematics, sums in another order. For weights that no longer change.
    Fused,
    /// As fused, but the large Linears in int8: weights with a step for each output, activations with a step and a zero point
    /// for each token, found when they come. For weights that no longer change.
    Int8,
}

impl Kernels {
    /// Whether this CPU has them. What is fused falls back to libtorch's operators where there is nothing faster, but int8 takes
    /// AVX-512 VNNI, AVX2, or Arm's products of int8 (dotprod, i8mm).
    pub fn is_supported(self) -> bool {
        match self {
            Self::Plain | Self::Differentiable | Self::Fused => true,
            Self::Int8 => Words::Int8.supported(Cpu::detect()),
        }
    }

    /// The kernels for Linears that 8 bits would harm: embeddings, modulations, the last one.
    pub fn sensitive(self) -> Self {
        match self {
            Self::Int8 => Self::Fused,
            other => other,
        }
    }

    /// LayerNorm(x)·(1 + scale) + shift, of the kind of `shift`: [`layer_norm_modulate`], or its plain form.
    ///
    /// # Shapes
    /// `x` (N, T, D); `shift` and `scale` (N, 1, D) → (N, T, D).
    pub fn layer_norm_modulate(self, x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Tensor {
        let result = match self {
            Self::Plain => plain_layer_norm_modulate(x, shift, scale, eps),
            Self::Differentiable | Self::Fused | Self::Int8 => layer_norm_modulate(x, shift, scale, eps),
        };
        result.to_kind(shift.kind())
    }

    /// x + gate·y: [`add_gated`], or its plain form; what is fused rounds once wherever it is.
    ///
    /// # Shapes
    /// `x` and `y` (N, T, D); `gate` (N, 1, D) → (N, T, D).
    pub fn add_gated(self, x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
        match self {
            Self::Plain => plain_add_gated(x, gate, y),
            Self::Differentiable => add_gated(x, gate, y),
            Self::Fused | Self::Int8 => add_gated_in_one(x, gate, y),
        }
    }

    /// softmax(q·kᵀ / √(D/H))·v in H heads: [`self_attention`], [`plain_attention`](crate::plain_attention), or one that gives gradients.
    ///
    /// # Shapes
    /// `qkv` (N, T, 3D) → (N, T, D).
    pub fn self_attention(self, qkv: &Tensor, heads: i64) -> Tensor {
        match self {
            Self::Plain => plain_self_attention(qkv, heads),
            Self::Differentiable => {
                differentiable::self_attention(qkv, heads).unwrap_or_else(|| plain_self_attention(qkv, heads))
            }
            Self::Fused | Self::Int8 => self_attention(qkv, heads),
        }
    }
}
