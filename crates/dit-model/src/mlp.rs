use dit_config::DitConfig;
use dit_ops::{Kernels, Linear};
use tch::Tensor;

use crate::init::{Distribution, Scope};

/// The transformer's pointwise MLP: Linear, GELU in its tanh form, Linear.
#[derive(Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let (d, hidden) = (config.hidden, config.mlp_hidden());
        Self {
            fc1: scope.sub("fc1").linear(d, hidden, Distribution::XavierUniform),
            fc2: scope.sub("fc2").linear(hidden, d, Distribution::XavierUniform),
        }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        self.fc1.optimize(kernels);
        self.fc2.optimize(kernels);
    }

    /// # Shapes
    /// (N, T, D) → (N, T, D).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.fc2.forward(&self.fc1.forward_gelu(x)) // (N, T, D)
    }
}
