use dit_config::DitConfig;
use dit_ops::Kernels;
use tch::Tensor;

use super::{EPS, mlp_norm_eps};
use crate::{
    attention::SelfAttention,
    init::{Distribution, Scope},
    mlp::Mlp,
    modulation::{AdaptiveNorm, Branch, Regressor},
};

/// The DiT block: adaLN with a gate on each residual branch, all zero at first, so that the block starts as the identity.
#[derive(Debug)]
pub struct AdaLnZeroBlock {
    norm1: AdaptiveNorm,
    attn: SelfAttention,
    norm2: AdaptiveNorm,
    mlp: Mlp,
    modulation: Regressor<6>,
    kernels: Kernels,
}

impl AdaLnZeroBlock {
    pub(super) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            norm1: AdaptiveNorm::new(EPS),
            attn: SelfAttention::new(&scope.sub("attn"), config),
            norm2: AdaptiveNorm::new(mlp_norm_eps(config.numerics)),
            mlp: Mlp::new(&scope.sub("mlp"), config),
            modulation: Regressor::new(scope, d, Distribution::Zeros),
            kernels: Kernels::Plain,
        }
    }

    pub(super) fn optimize(&mut self, kernels: Kernels) {
        self.norm1.optimize(kernels);
        self.attn.optimize(kernels);
        self.norm2.optimize(kernels);
        self.mlp.optimize(kernels);
        self.modulation.optimize(kernels);
        self.kernels = kernels;
    }

    /// # Shapes
    /// `x` (N, T, D), `c` (N, D) → (N, T, D).
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let [attn, mlp] = self.branches(c);
        let y = self.attn.forward(&self.norm1.forward(x, &attn.modulation)); // (N, T, D)
        let x = self.kernels.add_gated(x, &attn.gate, &y); // (N, T, D)
        let y = self.mlp.forward(&self.norm2.forward(&x, &mlp.modulation)); // (N, T, D)
        self.kernels.add_gated(&x, &mlp.gate, &y) // (N, T, D)
    }

    /// What the conditioning makes of the attention's and the MLP's branch.
    ///
    /// # Shapes
    /// `c` (N, D) → (N, 1, D) in each field.
    pub fn branches(&self, c: &Tensor) -> [Branch; 2] {
        let [shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp] = self.modulation.forward(c);
        [Branch::new(shift_msa, scale_msa, gate_msa), Branch::new(shift_mlp, scale_mlp, gate_mlp)]
    }
}
