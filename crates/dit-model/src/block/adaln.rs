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
    modulation::{Modulation, Regressor},
};

/// A transformer block whose LayerNorms take shift and scale from the conditioning.
///
/// A reconstruction from the paper's text, parameter and multiply-accumulate counts; its code was never published.
#[derive(Debug)]
pub struct AdaLnBlock {
    norm1: nn::LayerNorm,
    attn: SelfAttention,
    norm2: nn::LayerNorm,
    mlp: Mlp,
    modulation: Regressor<4>,
}

impl AdaLnBlock {
    pub(super) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            norm1: scope.plain_norm(d, EPS),
            attn: SelfAttention::new(&scope.sub("attn"), config),
            norm2: scope.plain_norm(d, mlp_norm_eps(config.numerics)),
            mlp: Mlp::new(&scope.sub("mlp"), config),
            modulation: Regressor::new(scope, d, Distribution::XavierUniform),
        }
    }

    /// # Shapes
    /// `x` (N, T, D), `c` (N, D) → (N, T, D).
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let [attn, mlp] = self.modulations(c);
        let x = x + self.attn.forward(&attn.apply(&self.norm1.forward(x))); // (N, T, D)
        &x + self.mlp.forward(&mlp.apply(&self.norm2.forward(&x))) // (N, T, D)
    }

    /// What the conditioning makes of the attention's and the MLP's LayerNorm.
    ///
    /// # Shapes
    /// `c` (N, D) → (N, 1, D) in each field.
    pub fn modulations(&self, c: &Tensor) -> [Modulation; 2] {
        let [shift_msa, scale_msa, shift_mlp, scale_mlp] = self.modulation.forward(c);
        [Modulation { shift: shift_msa, scale: scale_msa }, Modulation { shift: shift_mlp, scale: scale_mlp }]
    }
}
