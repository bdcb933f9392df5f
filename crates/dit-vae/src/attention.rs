use tch::{Kind, Tensor};

use crate::Error;
use crate::features::Features;
use crate::layers::{Between, Conv2d, NormConv};
use crate::weights::Weights;

/// Self-attention of a single head over all pixels, around a skip connection.
///
/// Through libtorch's fused operator, which never holds the (H·W)² matrix: memory grows with H·W, time with its square.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Query, key and value are 1×1 convolutions of the same normalised pixels.
    qkv: NormConv,
    out: Conv2d,
    kind: Kind,
}

impl Attention {
    pub(crate) fn new(weights: &mut Weights, name: &str, groups: usize) -> Result<Self, Error> {
        let qkv = Conv2d::linear(weights, &["to_q", "to_k", "to_v"].map(|part| format!("{name}.{part}")))?;
        Ok(Self {
            qkv: NormConv::new(weights, &format!("{name}.group_norm"), groups, Between::Nothing, qkv)?,
            out: Conv2d::linear(weights, &[format!("{name}.to_out.0")])?,
            kind: weights.kind(),
        })
    }

    pub(crate) fn forward(&self, x: Features) -> Result<Features, Error> {
        let size = x.pixels().size();
        let (n, c, h, w) = (size[0], size[1], size[2], size[3]);
        let qkv = self.qkv.forward(&x)?.permute([0, 2, 3, 1]).reshape([n, 1, h * w, 3 * c]); // (N, 1, H·W, 3·C)
        // Fused operators want channels innermost, which a GPU's normalisation does not give.
        let qkv = qkv.to_kind(self.kind).contiguous();
        let part = |i: i64| qkv.narrow(3, i * c, c); // (N, 1, H·W, C)
        let (causal, grouped) = (false, false);
        let mask = None::<&Tensor>;
        let mixed =
            Tensor::scaled_dot_product_attention(&part(0), &part(1), &part(2), mask, 0.0, causal, None, grouped);
        let mixed = mixed.to_kind(x.pixels().kind()).reshape([n, h, w, c]).permute([0, 3, 1, 2]); // (N, C, H, W)
        self.out.features_over(x.into_pixels(), &mixed) // (N, C, H, W)
    }
}
