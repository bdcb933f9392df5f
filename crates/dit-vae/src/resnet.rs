use tch::Tensor;

use crate::Error;
use crate::layers::{Conv2d, GroupNorm};
use crate::weights::Weights;

/// Two normalised 3×3 convolutions around a skip connection; a 1×1 convolution mends the skip where the width changes.
#[derive(Debug)]
pub(crate) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

/// Channels in and channels out.
#[derive(Clone, Copy)]
pub(crate) struct Widths {
    pub(crate) input: usize,
    pub(crate) output: usize,
}

impl Resnet {
    pub(crate) fn new(weights: &mut Weights, name: &str, widths: Widths, groups: usize) -> Result<Self, Error> {
        Ok(Self {
            norm1: GroupNorm::new(weights, &format!("{name}.norm1"), groups)?,
            conv1: Conv2d::same(weights, &format!("{name}.conv1"))?,
            norm2: GroupNorm::new(weights, &format!("{name}.norm2"), groups)?,
            conv2: Conv2d::same(weights, &format!("{name}.conv2"))?,
            shortcut: if widths.input == widths.output {
                None
            } else {
                Some(Conv2d::same(weights, &format!("{name}.conv_shortcut"))?)
            },
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.conv1.forward(&self.norm1.forward_silu(x)); // (N, C_out, H, W)
        let mut h = self.conv2.forward(&self.norm2.forward_silu(&h)); // (N, C_out, H, W)
        match &self.shortcut {
            None => h += x,
            Some(shortcut) => h += shortcut.forward(x),
        }
        h
    }
}
