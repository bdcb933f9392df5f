use dit_ops::conv::{GroupNorm, Measured, Normalization, Statistics};
use tch::Tensor;

use crate::Error;
use crate::layers::Between;

/// What layers hand each other: pixels, and where packed convolutions made them, what the next normalisation asks of them.
#[derive(Debug)]
pub(crate) struct Features {
    pixels: Tensor, // (N, C, H, W)
    statistics: Option<Statistics>,
}

impl Features {
    pub(crate) fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    pub(crate) fn into_pixels(self) -> Tensor {
        self.pixels
    }

    /// What `norm`, and what follows it, make of each channel.
    pub(crate) fn map(&self, norm: &GroupNorm, between: Between) -> Result<Normalization, Error> {
        let map = match &self.statistics {
            Some(statistics) => norm.map(statistics)?,
            None => norm.of(&self.pixels)?,
        };
        Ok(match between {
            Between::Nothing => map,
            Between::Silu => map.then_silu(),
        })
    }
}

impl From<Tensor> for Features {
    fn from(pixels: Tensor) -> Self {
        Self { pixels, statistics: None }
    }
}

impl From<Measured> for Features {
    fn from(measured: Measured) -> Self {
        Self { pixels: measured.result, statistics: Some(measured.statistics) }
    }
}
