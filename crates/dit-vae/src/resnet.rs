use crate::Error;
use crate::features::Features;
use crate::layers::{Between, Conv2d, NormConv};
use crate::weights::Weights;

/// Two normalised 3×3 convolutions around a skip connection; a 1×1 convolution mends the skip where the width changes.
#[derive(Debug)]
pub(crate) struct Resnet {
    first: NormConv,
    second: NormConv,
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
        let mut half = |i: usize| {
            let conv = Conv2d::same(weights, &format!("{name}.conv{i}"))?;
            NormConv::new(weights, &format!("{name}.norm{i}"), groups, Between::Silu, conv)
        };
        Ok(Self {
            first: half(1)?,
            second: half(2)?,
            shortcut: if widths.input == widths.output {
                None
            } else {
                Some(Conv2d::same(weights, &format!("{name}.conv_shortcut"))?)
            },
        })
    }

    pub(crate) fn forward(&self, x: Features) -> Result<Features, Error> {
        let h = self.first.features(&x)?; // (N, C_out, H, W)
        let skip = match &self.shortcut {
            None => x.into_pixels(),                         // (N, C_out, H, W)
            Some(shortcut) => shortcut.forward(x.pixels())?, // (N, C_out, H, W)
        };
        self.second.features_over(skip, &h) // (N, C_out, H, W)
    }
}
