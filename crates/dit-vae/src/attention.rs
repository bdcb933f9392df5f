use tch::Tensor;

use crate::Error;
use crate::layers::{GroupNorm, Linear};
use crate::weights::Weights;

/// Self-attention of a single head over all pixels, around a skip connection.
///
/// Through the fused kernel, which never holds the (H·W)² matrix: memory grows with H·W, time with its square.
#[derive(Debug)]
pub(crate) struct Attention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
}

impl Attention {
    pub(crate) fn new(weights: &mut Weights, name: &str, groups: usize) -> Result<Self, Error> {
        Ok(Self {
            norm: GroupNorm::new(weights, &format!("{name}.group_norm"), groups)?,
            query: Linear::new(weights, &format!("{name}.to_q"))?,
            key: Linear::new(weights, &format!("{name}.to_k"))?,
            value: Linear::new(weights, &format!("{name}.to_v"))?,
            out: Linear::new(weights, &format!("{name}.to_out.0"))?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let (n, c, h, w) = (size[0], size[1], size[2], size[3]);
        let tokens = self.norm.forward(x).permute([0, 2, 3, 1]).reshape([n, 1, h * w, c]); // (N, 1, H·W, C)
        let (q, k, v) = (self.query.forward(&tokens), self.key.forward(&tokens), self.value.forward(&tokens));
        let (causal, grouped) = (false, false);
        let mixed = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, causal, None, grouped);
        let mixed = self.out.forward(&mixed); // (N, 1, H·W, C)
        mixed.reshape([n, h, w, c]).permute([0, 3, 1, 2]) + x // (N, C, H, W)
    }
}
