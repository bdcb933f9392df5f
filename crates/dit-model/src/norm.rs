use tch::Tensor;

use crate::init::{Distribution, Scope};

/// LayerNorm with a weight and a bias of its own.
#[derive(Debug)]
pub(crate) struct AffineNorm {
    /// (D,) each.
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl AffineNorm {
    pub(crate) fn new(scope: &Scope, width: usize, eps: f64) -> Self {
        let weight = scope.variable("weight", &[width], Distribution::Ones);
        Self { weight, bias: scope.variable("bias", &[width], Distribution::Zeros), eps }
    }

    /// Computed in the kind of `x`, handed on in that of the weights.
    ///
    /// # Shapes
    /// (N, T, D) → (N, T, D).
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (self.weight.to_kind(x.kind()), self.bias.to_kind(x.kind()));
        let cudnn = true;
        x.layer_norm(self.weight.size(), Some(&weight), Some(&bias), self.eps, cudnn).to_kind(self.weight.kind())
    }
}
