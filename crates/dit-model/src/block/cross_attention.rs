use dit_config::DitConfig;
use dit_ops::Kernels;
use tch::Tensor;

use super::{EPS, mlp_norm_eps};
use crate::{
    attention::{CrossAttention, SelfAttention},
    init::Scope,
    mlp::Mlp,
    norm::AffineNorm,
};

/// A ViT block with a cross-attention to the sequence \[timestep, label\] after its self-attention.
///
/// A reconstruction from the paper's text, parameter and multiply-accumulate counts; its code was never published.
#[derive(Debug)]
pub struct CrossAttentionBlock {
    norm1: AffineNorm,
    attn: SelfAttention,
    norm_cross: AffineNorm,
    cross_attn: CrossAttention,
    norm2: AffineNorm,
    mlp: Mlp,
}

impl CrossAttentionBlock {
    pub(super) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            norm1: AffineNorm::new(&scope.sub("norm1"), d, EPS),
            attn: SelfAttention::new(&scope.sub("attn"), config),
            norm_cross: AffineNorm::new(&scope.sub("norm_cross"), d, EPS),
            cross_attn: CrossAttention::new(&scope.sub("cross_attn"), config),
            norm2: AffineNorm::new(&scope.sub("norm2"), d, mlp_norm_eps(config.numerics)),
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
