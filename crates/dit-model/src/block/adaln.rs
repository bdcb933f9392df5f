use dit_config::DitConfig;
use dit_ops::Kernels;
use tch::Tensor;

use super::{EPS, mlp_norm_eps};
use crate::{
    attention::SelfAttention,
    init::{Distribution, Scope},
    mlp::Mlp,
    modulation::{AdaptiveNorm, Modulation, Regressor},
};

/// A transformer block whose LayerNorms take shift and scale from the conditioning.
///
/// A reconstruction from the paper's text, parameter and multiply-accumulate counts; its code was never published.
#[derive(Debug)]
pub struct AdaLnBlock {
    norm1: AdaptiveNorm,
    attn: SelfAttention,
    norm2: AdaptiveNorm,
    mlp: Mlp,
    modulation: Regressor<4>,
}

impl AdaLnBlock {
    pub(super) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            norm1: AdaptiveNorm::new(EPS),
            attn: SelfAttention::new(&scope.sub("attn"), config),
            norm2: AdaptiveNorm::new(mlp_norm_eps(config.numerics)),
            mlp: Mlp::new(&scope.sub("mlp"), config),
            modulation: Regressor::new(scope, d, Distribution::XavierUniform),
        }
    }

    pub(super) fn optimize(&mut self, kernels: Kernels) {
        self.norm1.optimize(kernels);
        self.attn.optimize(kernels);
        self.norm2.optimize(kernels);
        self.mlp.optimize(kernels);
        self.modulation.optimize(kernels);
    }

    /// # Shapes
    /// `x` (N, T, D), `c` (N, D) → (N, T, D).
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let [attn, mlp] = self.modulations(c);
        let x = x + self.attn.forward(&self.norm1.forward(x, &attn)); // (N, T, D)
        &x + self.mlp.forward(&self.norm2.forward(&x, &mlp)) // (N, T, D)
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
