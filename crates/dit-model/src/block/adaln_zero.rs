use dit_config::DitConfig;
use tch::{
    Tensor,
    nn::{self, Module},
};

use super::{EPS, mlp_norm_eps};
use crate::{
    attention::SelfAttention,
    init::{Distribution, Scope},
    mlp::Mlp,
    modulation::{Branch, Regressor},
};

/// The DiT block: adaLN with a gate on each residual branch, all zero at first, so that the block starts as the identity.
#[derive(Debug)]
pub struct AdaLnZeroBlock {
    norm1: nn::LayerNorm,
    attn: SelfAttention,
    norm2: nn::LayerNorm,
    mlp: Mlp,
    modulation: Regressor<6>,
}

impl AdaLnZeroBlock {
    pub(super) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            norm1: scope.plain_norm(d, EPS),
            attn: SelfAttention::new(&scope.sub("attn"), config),
            norm2: scope.plain_norm(d, mlp_norm_eps(config.numerics)),
            mlp: Mlp::new(&scope.sub("mlp"), config),
            modulation: Regressor::new(scope, d, Distribution::Zeros),
        }
    }

    /// # Shapes
    /// `x` (N, T, D), `c` (N, D) → (N, T, D).
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let [attn, mlp] = self.branches(c);
        let x = x + attn.gate * self.attn.forward(&attn.modulation.apply(&self.norm1.forward(x))); // (N, T, D)
        &x + mlp.gate * self.mlp.forward(&mlp.modulation.apply(&self.norm2.forward(&x))) // (N, T, D)
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
