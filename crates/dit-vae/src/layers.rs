//! Convolution, linear map and group normalisation over tensors that are given, not made.

use tch::Tensor;

use crate::Error;
use crate::weights::Weights;

/// Every GroupNorm's addend to the variance, in diffusers' AutoencoderKL as in Rombach et al. 2022.
const GROUP_NORM_EPS: f64 = 1e-6;

/// The same values with channels innermost in memory. A copy only where they are not so already.
///
/// CPU convolutions are faster so (SD's decoder at 256 px in fp32: by a sixth), and so are CUDA's in half precision.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// A 2-D convolution of odd kernel k.
#[derive(Debug)]
pub(crate) struct Conv2d {
    weight: Tensor, // (C_out, C_in, k, k), channels innermost
    bias: Tensor,   // (C_out)
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// Stride 1, padded so that height and width stay.
    pub(crate) fn same(weights: &mut Weights, name: &str) -> Result<Self, Error> {
        let mut conv = Self::strided(weights, name, 1)?;
        conv.padding = conv.weight.size()[2] / 2;
        Ok(conv)
    }

    /// Any stride, no padding.
    pub(crate) fn strided(weights: &mut Weights, name: &str, stride: i64) -> Result<Self, Error> {
        let weight = channels_last(&weights.take(&format!("{name}.weight"))?);
        let bias = weights.take(&format!("{name}.bias"))?;
        Ok(Self { weight, bias, stride, padding: 0 })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        x.conv2d(&self.weight, Some(&self.bias), stride, padding, [1, 1], 1)
    }
}

/// y = x·Wᵀ + b over the last axis.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor, // (out, in)
    bias: Tensor,   // (out)
}

impl Linear {
    pub(crate) fn new(weights: &mut Weights, name: &str) -> Result<Self, Error> {
        let weight = weights.take(&format!("{name}.weight"))?;
        Ok(Self { weight, bias: weights.take(&format!("{name}.bias"))? })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Group normalisation (Wu & He 2018) with affine parameters; statistics are accumulated in fp32 whatever the kind.
#[derive(Debug)]
pub(crate) struct GroupNorm {
    groups: i64,
    weight: Tensor, // (C)
    bias: Tensor,   // (C)
}

impl GroupNorm {
    pub(crate) fn new(weights: &mut Weights, name: &str, groups: usize) -> Result<Self, Error> {
        let weight = weights.take(&format!("{name}.weight"))?;
        Ok(Self { groups: groups as i64, weight, bias: weights.take(&format!("{name}.bias"))? })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), GROUP_NORM_EPS, false)
    }

    /// SiLU of the normalised values, written over them: the largest tensors of the decoder are not held twice.
    pub(crate) fn forward_silu(&self, x: &Tensor) -> Tensor {
        self.forward(x).silu_()
    }
}
