use dit_config::DitConfig;
use dit_ops::{Kernels, Linear, merge_heads, plain_attention, split_heads};
use tch::Tensor;

use crate::init::{Distribution, Scope};

/// Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2); H heads.
#[derive(Debug)]
pub struct SelfAttention {
    /// D → 3D: queries, keys, values.
    qkv: Linear,
    proj: Linear,
    heads: i64,
    kernels: Kernels,
}

impl SelfAttention {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            qkv: scope.sub("qkv").linear(d, 3 * d, Distribution::XavierUniform),
            proj: scope.sub("proj").linear(d, d, Distribution::XavierUniform),
            heads: config.heads as i64,
            kernels: Kernels::Plain,
        }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        self.qkv.optimize(kernels);
        self.proj.optimize(kernels);
        self.kernels = kernels;
    }

    /// # Shapes
    /// (N, T, D) → (N, T, D).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let qkv = self.qkv.forward(x); // (N, T, 3D)
        self.proj.forward(&self.kernels.self_attention(&qkv, self.heads)) // (N, T, D)
    }
}

/// Multi-head attention of one sequence to another; H heads.
#[derive(Debug)]
pub struct CrossAttention {
    q: Linear,
    /// D → 2D: keys, values.
    kv: Linear,
    proj: Linear,
    heads: i64,
}

impl CrossAttention {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        Self {
            q: scope.sub("q").linear(d, d, Distribution::XavierUniform),
            kv: scope.sub("kv").linear(d, 2 * d, Distribution::XavierUniform),
            proj: scope.sub("proj").linear(d, d, Distribution::XavierUniform),
            heads: config.heads as i64,
        }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        self.q.optimize(kernels);
        self.kv.optimize(kernels);
        self.proj.optimize(kernels);
    }

    /// # Shapes
    /// `x` (N, T, D) asks, `context` (N, S, D) answers → (N, T, D).
    pub fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let [q] = split_heads(&self.q.forward(x), self.heads); // (N, H, T, D/H)
        let [k, v] = split_heads(&self.kv.forward(&context.to_kind(self.kv.kind())), self.heads); // (N, H, S, D/H) each
        self.proj.forward(&merge_heads(&plain_attention(&q, &k, &v))) // (N, T, D)
    }
}
