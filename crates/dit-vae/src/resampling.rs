//! Halving and doubling of the resolution.

use crate::Error;
use crate::features::Features;
use crate::layers::Conv2d;
use crate::weights::Weights;

/// Halves height and width: one pixel of zeros at the right and at the bottom only, then a 3×3 convolution of stride 2.
#[derive(Debug)]
pub(crate) struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    pub(crate) fn new(weights: &mut Weights, name: &str) -> Result<Self, Error> {
        Ok(Self { conv: Conv2d::halving(weights, &format!("{name}.conv"))? })
    }

    pub(crate) fn forward(&self, x: &Features) -> Result<Features, Error> {
        self.conv.features(x.pixels()) // (N, C, H / 2, W / 2)
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

    pub(crate) fn forward(&self, x: &Features) -> Result<Features, Error> {
        self.conv.features_doubled(x.pixels()) // (N, C, 2H, 2W)
    }
}
