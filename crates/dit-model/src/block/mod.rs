//! The four block designs of the paper's figure 3.

mod adaln;
mod adaln_zero;
mod cross_attention;
mod in_context;

pub use adaln::AdaLnBlock;
pub use adaln_zero::AdaLnZeroBlock;
pub use cross_attention::CrossAttentionBlock;
use dit_config::{BlockDesign, DitConfig, Numerics};
use dit_ops::Kernels;
pub use in_context::InContextBlock;
use tch::Tensor;

use crate::init::Scope;

/// eps of every LayerNorm, but for [`mlp_norm_eps`].
pub(crate) const EPS: f64 = 1e-6;

/// eps of the LayerNorm before a block's MLP.
pub(crate) fn mlp_norm_eps(numerics: Numerics) -> f64 {
    match numerics {
        Numerics::Original => EPS,
        Numerics::Diffusers => 1e-5,
    }
}

/// One transformer block.
#[derive(Debug)]
pub enum Block {
    /// See [`InContextBlock`].
    InContext(InContextBlock),
    /// See [`CrossAttentionBlock`].
    CrossAttention(Box<CrossAttentionBlock>),
    /// See [`AdaLnBlock`].
    AdaLn(AdaLnBlock),
    /// See [`AdaLnZeroBlock`].
    AdaLnZero(AdaLnZeroBlock),
}

impl Block {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        match config.block {
            BlockDesign::InContext => Self::InContext(InContextBlock::new(scope, config)),
            BlockDesign::CrossAttention => Self::CrossAttention(Box::new(CrossAttentionBlock::new(scope, config))),
            BlockDesign::AdaLn => Self::AdaLn(AdaLnBlock::new(scope, config)),
            BlockDesign::AdaLnZero => Self::AdaLnZero(AdaLnZeroBlock::new(scope, config)),
        }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        match self {
            Self::InContext(block) => block.optimize(kernels),
            Self::CrossAttention(block) => block.optimize(kernels),
            Self::AdaLn(block) => block.optimize(kernels),
            Self::AdaLnZero(block) => block.optimize(kernels),
        }
    }

    /// # Shapes
    /// `x` (N, T, D), the conditioning `c` of [`Dit::condition`](crate::Dit::condition) → (N, T, D). An in-context
    /// block's T counts the two conditioning tokens, and it has no other use for `c`.
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        match self {
            Self::InContext(block) => block.forward(x),
            Self::CrossAttention(block) => block.forward(x, c),
            Self::AdaLn(block) => block.forward(x, c),
            Self::AdaLnZero(block) => block.forward(x, c),
        }
    }
}
