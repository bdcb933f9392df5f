//! Adaptive layer normalisation: scale, shift and gate regressed from the conditioning (Peebles & Xie 2023, section 3.2).

use dit_ops::{Kernels, Linear};
use tch::Tensor;

use crate::init::{Distribution, Scope};

/// Shift and scale of a normalised sequence. Each is (N, 1, D): one per sample, the same for all tokens.
#[derive(Debug)]
pub struct Modulation {
    /// Added.
    pub shift: Tensor,
    /// One less than the factor.
    pub scale: Tensor,
}

/// A LayerNorm without weights of its own: what follows it comes from the conditioning.
#[derive(Debug)]
pub struct AdaptiveNorm {
    eps: f64,
    kernels: Kernels,
}

impl AdaptiveNorm {
    pub(crate) fn new(eps: f64) -> Self {
        Self { eps, kernels: Kernels::Plain }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        self.kernels = kernels;
    }

    /// LayerNorm(x)·(1 + scale) + shift, in the kind of the modulation, which is the weights'.
    ///
    /// # Shapes
    /// (N, T, D) → (N, T, D).
    pub fn forward(&self, x: &Tensor, modulation: &Modulation) -> Tensor {
        let Modulation { shift, scale } = modulation;
        self.kernels.layer_norm_modulate(x, shift, scale, self.eps) // (N, T, D)
    }
}

/// What adaLN-Zero regresses for one residual branch of a block.
#[derive(Debug)]
pub struct Branch {
    /// Of the branch's input.
    pub modulation: Modulation,
    /// Of its output, (N, 1, D); zero makes the block the identity.
    pub gate: Tensor,
}

impl Branch {
    pub(crate) fn new(shift: Tensor, scale: Tensor, gate: Tensor) -> Self {
        Self { modulation: Modulation { shift, scale }, gate }
    }
}

/// SiLU and one Linear, D → CHUNKS·D.
#[derive(Debug)]
pub(crate) struct Regressor<const CHUNKS: usize> {
    linear: Linear,
}

impl<const CHUNKS: usize> Regressor<CHUNKS> {
    pub(crate) fn new(scope: &Scope, d: usize, weight: Distribution) -> Self {
        // In the published model the SiLU is the sequence's layer 0, the Linear its layer 1.
        Self { linear: scope.sub("adaLN_modulation").sub(1).sensitive_linear(d, CHUNKS * d, weight) }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        self.linear.optimize(kernels);
    }

    /// `c` (N, D) → CHUNKS times (N, 1, D).
    pub(crate) fn forward(&self, c: &Tensor) -> [Tensor; CHUNKS] {
        let c = c.silu().to_kind(self.linear.kind()); // (N, D)
        let all = self.linear.forward(&c).unsqueeze(1).unflatten(2, [CHUNKS as i64, -1]); // (N, 1, CHUNKS, D)
        let mut chunks = all.unbind(2).into_iter();
        std::array::from_fn(|_| chunks.next().expect("there are CHUNKS")) // (N, 1, D) each
    }
}
