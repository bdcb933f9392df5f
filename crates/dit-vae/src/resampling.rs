//! Halving and doubling of the resolution.

use tch::Tensor;

use crate::Error;
use crate::layers::{Conv2d, channels_last};
use crate::weights::Weights;

/// Halves height and width: one pixel of zeros at the right and at the bottom only, then a 3×3 convolution of stride 2.
#[derive(Debug)]
pub(crate) struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    pub(crate) fn new(weights: &mut Weights, name: &str) -> Result<Self, Error> {
        Ok(Self { conv: Conv2d::strided(weights, &format!("{name}.conv"), 2)? })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (left, right, top, bottom) = (0, 1, 0, 1);
        let padded = x.constant_pad_nd([left, right, top, bottom]); // (N, C, H + 1, W + 1)
        self.conv.forward(&padded) // (N, C, H / 2, W / 2)
    }
}

/// Doubles height and width: every pixel four times, then a 3×3 convolution.
#[derive(Debug)]
pub(crate) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(crate) fn new(weights: &mut Weights, name: &str) -> Result<Self, Error> {
        Ok(Self { conv: Conv2d::same(weights, &format!("{name}.conv"))? })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let doubled = x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None); // (N, C, 2H, 2W)
        self.conv.forward(&channels_last(&doubled)) // (N, C, 2H, 2W)
    }
}
