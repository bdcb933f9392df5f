use dit_config::{BlockDesign, DitConfig};
use tch::{
    Tensor,
    nn::{self, Module},
};

use crate::{
    block::EPS,
    init::{Distribution, Scope},
    modulation::{Modulation, Regressor},
};

/// LayerNorm and Linear from tokens to patches; adaLN and adaLN-Zero models modulate in between.
#[derive(Debug)]
pub struct FinalLayer {
    norm: nn::LayerNorm,
    /// Absent where the norm has its own weight and bias.
    modulation: Option<Regressor<2>>,
    linear: nn::Linear,
}

impl FinalLayer {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let d = config.hidden;
        let (norm, modulation) = match config.block {
            BlockDesign::InContext | BlockDesign::CrossAttention => (scope.sub("norm_final").affine_norm(d, EPS), None),
            BlockDesign::AdaLn => {
                (scope.plain_norm(d, EPS), Some(Regressor::new(scope, d, Distribution::XavierUniform)))
            }
            BlockDesign::AdaLnZero => (scope.plain_norm(d, EPS), Some(Regressor::new(scope, d, Distribution::Zeros))),
        };
        let patch_values = config.patch * config.patch * config.out_channels();
        Self { norm, modulation, linear: scope.sub("linear").linear(d, patch_values, Distribution::Zeros) }
    }

    /// # Shapes
    /// `x` (N, T, D), the conditioning `c` → (N, T, p·p·C_out), each token's values by row, column, channel.
    pub fn forward(&self, x: &Tensor, c: &Tensor) -> Tensor {
        let x = self.norm.forward(x); // (N, T, D)
        let x = match &self.modulation {
            Some(modulation) => {
                let [shift, scale] = modulation.forward(c); // (N, 1, D) each
                Modulation { shift, scale }.apply(&x) // (N, T, D)
            }
            None => x,
        };
        self.linear.forward(&x) // (N, T, p·p·C_out)
    }
}
