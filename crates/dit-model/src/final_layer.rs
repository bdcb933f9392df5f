use dit_config::{BlockDesign, DitConfig};
use dit_ops::{Kernels, Linear};
use tch::Tensor;

use crate::{
    block::EPS,
    init::{Distribution, Scope},
    modulation::{AdaptiveNorm, Modulation, Regressor},
    norm::AffineNorm,
};

/// LayerNorm and Linear from tokens to patches; adaLN and adaLN-Zero models modulate in between.
#[derive(Debug)]
pub struct FinalLayer {
    norm: Norm,
    linear: Linear,
}

#[derive(Debug)]
enum Norm {
    /// With a weight and a bias of its own.
    Affine(AffineNorm),
    Adaptive {
        norm: AdaptiveNorm,
        modulation: Regressor<2>,
    },
}

impl FinalLayer {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        let adaptive =
            |weight| Norm::Adaptive { norm: AdaptiveNorm::new(EPS), modulation: Regressor::new(scope, d, weight) };
        let norm = match config.block {
            BlockDesign::InContext | BlockDesign::CrossAttention => {
                Norm::Affine(AffineNorm::new(&scope.sub("norm_final"), d, EPS))
            }
            BlockDesign::AdaLn => adaptive(Distribution::XavierUniform),
            BlockDesign::AdaLnZero => adaptive(Distribution::Zeros),
        };
        let patch_values = config.patch * config.patch * config.out_channels();
        Self { norm, linear: scope.sub("linear").sensitive_linear(d, patch_values, Distribution::Zeros) }
    }

    pub(crate) fn optimize(&mut self, kernels: Kernels) {
        if let Norm::Adaptive { norm, modulation } = &mut self.norm {
            norm.optimize(kernels);
            modulation.optimize(kernels);
        }
        self.linear.optimize(kernels);
    }

    /// # Shapes
    /// `x` (N, T, D), the conditioning `c` → (N, T, p·p·C_out), each token's values by row, column, channel.
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let x = match &self.norm {
            Norm::Affine(norm) => norm.forward(x), // (N, T, D)
            Norm::Adaptive { norm, modulation } => {
                let [shift, scale] = modulation.forward(c); // (N, 1, D) each
                norm.forward(x, &Modulation { shift, scale }) // (N, T, D)
            }
        };
        self.linear.forward(&x) // (N, T, p·p·C_out)
    }
}
