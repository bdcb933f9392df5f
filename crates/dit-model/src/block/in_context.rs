use dit_config::DitConfig;
use dit_ops::Kernels;
use tch::Tensor;

use super::{EPS, mlp_norm_eps};
use crate::{attention::SelfAttention, init::Scope, mlp::Mlp, norm::AffineNorm};

/// A ViT block without change: the conditioning is two tokens of the sequence itself.
///
/// A reconstruction from the paper's text, parameter and multiply-accumulate counts; its code was never published.
#[derive(Debug)]
pub struct InContextBlock {
    norm1: AffineNorm,
    attn: SelfAttention,
    norm2: AffineNorm,
    mlp: Mlp,
}

impl InContextBlock {
    pub(super) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            norm1: AffineNorm::new(&scope.sub("norm1"), d, EPS),
            attn: SelfAttention::new(&scope.sub("attn"), config),
            norm2: AffineNorm::new(&scope.sub("norm2"), d, mlp_norm_eps(config.numerics)),
            mlp: Mlp::new(&scope.sub("mlp"), config),
        }
    }

    pub(super) fn optimize(&mut self, kernels: Kernels) {
        self.attn.optimize(kernels);
        self.mlp.optimize(kernels);
    }

    /// # Shapes
    /// `x` (N, T + 2, D): patches, then the timestep's and the label's token → (N, T + 2, D).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attn.forward(&self.norm1.forward(x)); // (N, T + 2, D)
        &x + self.mlp.forward(&self.norm2.forward(&x)) // (N, T + 2, D)
    }
}
