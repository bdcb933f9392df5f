use dit_config::DitConfig;
use dit_ops::Kernels;
use tch::{
    Tensor,
    nn::{self, Module},
};

use super::{EPS, mlp_norm_eps};
use crate::{
    attention::{CrossAttention, SelfAttention},
    init::Scope,
    mlp::Mlp,
};

/// A ViT block with a cross-attention to the sequence \[timestep, label\] after its self-attention.
///
/// A reconstruction from the paper's text, parameter and multiply-accumulate counts; its code was never published.
#[derive(Debug)]
pub struct CrossAttentionBlock {
    norm1: nn::LayerNorm,
    attn: SelfAttention,
    norm_cross: nn::LayerNorm,
    cross_attn: CrossAttention,
    norm2: nn::LayerNorm,
    mlp: Mlp,
}

impl CrossAttentionBlock {
    pub(super) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            norm1: scope.sub("norm1").affine_norm(d, EPS),
            attn: SelfAttention::new(&scope.sub("attn"), config),
            norm_cross: scope.sub("norm_cross").affine_norm(d, EPS),
            cross_attn: CrossAttention::new(&scope.sub("cross_attn"), config),
            norm2: scope.sub("norm2").affine_norm(d, mlp_norm_eps(config.numerics)),
            mlp: Mlp::new(&scope.sub("mlp"), config),
        }
    }

    pub(super) fn optimize(&mut self, kernels: Kernels) {
        self.attn.optimize(kernels);
        self.cross_attn.optimize(kernels);
        self.mlp.optimize(kernels);
    }

    /// # Shapes
    /// `x` (N, T, D), `c` (N, 2, D): the timestep's and the label's embedding → (N, T, D).
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let x = x + self.attn.forward(&self.norm1.forward(x)); // (N, T, D)
        let x = &x + self.cross_attn.forward(&self.norm_cross.forward(&x), c); // (N, T, D)
        &x + self.mlp.forward(&self.norm2.forward(&x)) // (N, T, D)
    }
}
