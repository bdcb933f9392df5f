use dit_config::{DitConfig, LatentSize};
use tch::{Kind, Tensor};

use crate::init::{Distribution, Scope};

/// Cuts a latent into p×p patches and embeds each with one Linear (a convolution of stride p).
#[derive(Debug)]
pub struct PatchEmbedder {
    /// (D, C, p, p).
    weight: Tensor,
    /// (D,).
    bias: Tensor,
}

impl PatchEmbedder {
    pub(crate) fn new(scope: &Scope, config: &DitConfig) -> Self {
        let proj = scope.sub("proj");
        let (c, p, d) = (config.in_channels, config.patch, config.hidden);
        Self {
            weight: proj.variable("weight", &[d, c, p, p], Distribution::XavierUniform),
            bias: proj.variable("bias", &[d], Distribution::Zeros),
        }
    }

    /// Of the weights and of the output.
    pub(crate) fn kind(&self) -> Kind {
        self.weight.kind()
    }

    /// # Shapes
    /// `x` (N, C, H, W) → (N, T, D), T = H/p · W/p, the patches row by row.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (stride, padding, dilation, groups) = (&self.weight.size()[2..], 0, 1, 1);
        x.conv2d(&self.weight, Some(&self.bias), stride, padding, dilation, groups) // (N, D, H/p, W/p)
            .flatten(2, 3) // (N, D, T)
            .transpose(1, 2) // (N, T, D)
            .contiguous()
    }
}

/// Puts patches back into their places: the inverse of cutting.
///
/// # Shapes
/// `tokens` (N, h·w, p·p·C), each token's values by row, column, channel → (N, C, h·p, w·p); `grid` is h×w.
pub fn unpatchify(tokens: &Tensor, grid: LatentSize, patch: usize) -> Tensor {
    let [h, w, p] = [grid.height as i64, grid.width as i64, patch as i64];
    tokens
        .unflatten(2, [p, p, -1]) // (N, T, p, p, C)
        .unflatten(1, [h, w]) // (N, h, w, p, p, C)
        .permute([0, 5, 1, 3, 2, 4]) // (N, C, h, p, w, p)
        .flatten(4, 5) // (N, C, h, p, W)
        .flatten(2, 3) // (N, C, H, W)
}
