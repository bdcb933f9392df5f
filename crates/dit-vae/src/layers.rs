//! Convolution and group normalisation over tensors that are given, not made.
//!
//! Each has two forms: libtorch's operators one after another, or one pass of `dit_ops::conv` over packed weights. Which, the
//! weights say.

use dit_ops::conv::{Convolution, Geometry, GroupNorm, Input, Products, Skip};
use tch::{Device, Tensor};

use crate::Error;
use crate::features::Features;
use crate::weights::Weights;

/// Every GroupNorm's addend to the variance, in diffusers' AutoencoderKL as in Rombach et al. 2022.
const GROUP_NORM_EPS: f64 = 1e-6;

/// On a CPU, the same values with channels innermost in memory; a copy only where they are not so already. Convolutions are faster
/// so (SD's decoder at 256 px in fp32: by a sixth).
///
/// On a GPU the tensor itself: libtorch's group normalisation gives channels outermost there, whatever it is given, and every
/// convolution would have to turn that.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    if x.device() != Device::Cpu {
        return x.shallow_clone();
    }
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// A 2-D convolution of odd kernel k.
#[derive(Debug)]
pub(crate) enum Conv2d {
    Plain {
        weight: Tensor, // (C_out, C_in, k, k), on a CPU channels innermost
        bias: Tensor,   // (C_out)
        geometry: Geometry,
    },
    Packed(Convolution),
}

impl Conv2d {
    /// Stride 1, padded so that height and width stay.
    pub(crate) fn same(weights: &mut Weights, name: &str) -> Result<Self, Error> {
        let (weight, bias) = weights.take_pair(name)?;
        let half = weight.size()[2] as usize / 2;
        Self::new(weights, &weight, bias, Geometry { stride: 1, before: half, after: half })
    }

    /// Stride 2, with a pixel of zeros at the right and at the bottom only.
    pub(crate) fn halving(weights: &mut Weights, name: &str) -> Result<Self, Error> {
        let (weight, bias) = weights.take_pair(name)?;
        Self::new(weights, &weight, bias, Geometry { stride: 2, before: 0, after: 1 })
    }

    /// Linear maps of the same input as one 1×1 convolution, whose channels are theirs, one after the other.
    pub(crate) fn linear(weights: &mut Weights, names: &[String]) -> Result<Self, Error> {
        let mut parts = (Vec::new(), Vec::new());
        for name in names {
            let (weight, bias) = weights.take_pair(name)?;
            parts.0.push(weight);
            parts.1.push(bias);
        }
        let weight = Tensor::cat(&parts.0, 0).unsqueeze(-1).unsqueeze(-1); // (out, in, 1, 1)
        Self::new(weights, &weight, Tensor::cat(&parts.1, 0), Geometry { stride: 1, before: 0, after: 0 })
    }

    fn new(weights: &Weights, weight: &Tensor, bias: Tensor, geometry: Geometry) -> Result<Self, Error> {
        match weights.products() {
            None => Ok(Self::Plain { weight: channels_last(weight), bias, geometry }),
            Some(products) => Ok(Self::Packed(Convolution::new(weight, &bias, geometry, products)?)),
        }
    }

    /// (N, C_in, H, W) → (N, C_out, H', W').
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        match self {
            Self::Plain { weight, bias, geometry: Geometry { stride, before, after } } => {
                let (stride, before, after) = (*stride as i64, *before as i64, *after as i64);
                let uneven = after - before;
                let x = if uneven == 0 { x.shallow_clone() } else { x.constant_pad_nd([0, uneven, 0, uneven]) };
                Ok(x.conv2d(weight, Some(bias), [stride; 2], [before; 2], [1, 1], 1))
            }
            Self::Packed(packed) => Ok(packed.forward(x, Input::Plain, Skip::Nothing)?),
        }
    }

    /// The same for a normalisation to follow.
    pub(crate) fn features(&self, x: &Tensor) -> Result<Features, Error> {
        match self {
            Self::Plain { .. } => Ok(self.forward(x)?.into()),
            Self::Packed(packed) => Ok(packed.forward_measured(x, Input::Plain, Skip::Nothing, Products::Fp32)?.into()),
        }
    }

    /// The same plus `skip`, (N, C_out, H', W'), which is used up.
    pub(crate) fn features_over(&self, skip: Tensor, x: &Tensor) -> Result<Features, Error> {
        match self {
            Self::Plain { .. } => Ok(self.forward(x)?.g_add_(&skip).into()),
            Self::Packed(packed) => {
                Ok(packed.forward_measured(x, Input::Plain, Skip::Replaced(skip), Products::Fp32)?.into())
            }
        }
    }

    /// The same after every pixel has become four: (N, C_in, H, W) → (N, C_out, 2H, 2W).
    pub(crate) fn features_doubled(&self, x: &Tensor) -> Result<Features, Error> {
        match self {
            Self::Plain { .. } => {
                let size = x.size();
                let doubled = x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None); // (N, C_in, 2H, 2W)
                Ok(self.forward(&channels_last(&doubled))?.into())
            }
            Self::Packed(packed) => {
                Ok(packed.forward_measured(x, Input::Doubled, Skip::Nothing, Products::Fp32)?.into())
            }
        }
    }
}

/// What stands between a normalisation and the convolution after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    Nothing,
    Silu,
}

/// A group normalisation (Wu & He 2018) with affine parameters, perhaps SiLU, and a convolution.
///
/// Statistics are accumulated in fp32 or wider whatever the kind.
#[derive(Debug)]
pub(crate) enum NormConv {
    Plain {
        groups: i64,
        weight: Tensor, // (C_in)
        bias: Tensor,   // (C_in)
        between: Between,
        conv: Conv2d,
    },
    Packed {
        norm: GroupNorm,
        between: Between,
        conv: Convolution,
    },
}

impl NormConv {
    /// The normalisation called `norm` in `groups` groups, then `conv`.
    pub(crate) fn new(
        weights: &mut Weights,
        norm: &str,
        groups: usize,
        between: Between,
        conv: Conv2d,
    ) -> Result<Self, Error> {
        let (weight, bias) = weights.take_pair(norm)?;
        match conv {
            Conv2d::Plain { .. } => Ok(Self::Plain { groups: groups as i64, weight, bias, between, conv }),
            Conv2d::Packed(conv) => {
                Ok(Self::Packed { norm: GroupNorm::new(groups, &weight, &bias, GROUP_NORM_EPS)?, between, conv })
            }
        }
    }

    /// (N, C_in, H, W) → (N, C_out, H, W).
    pub(crate) fn forward(&self, x: &Features) -> Result<Tensor, Error> {
        match self {
            Self::Plain { .. } => self.plain(x),
            Self::Packed { norm, between, conv } => {
                let map = x.map(norm, *between)?;
                Ok(conv.forward(x.pixels(), Input::Normalized(&map), Skip::Nothing)?)
            }
        }
    }

    /// The same for a normalisation and a convolution like this one to follow, and for nothing else: where products are of
    /// bf16, so is the result, as the next products would round it anyway.
    pub(crate) fn features(&self, x: &Features) -> Result<Features, Error> {
        match self {
            Self::Plain { .. } => Ok(self.plain(x)?.into()),
            Self::Packed { norm, between, conv } => {
                let map = x.map(norm, *between)?;
                let input = Input::Normalized(&map);
                Ok(conv.forward_measured(x.pixels(), input, Skip::Nothing, conv.products())?.into())
            }
        }
    }

    /// The same plus `skip`, (N, C_out, H, W), which is used up.
    pub(crate) fn features_over(&self, skip: Tensor, x: &Features) -> Result<Features, Error> {
        match self {
            Self::Plain { .. } => Ok(self.plain(x)?.g_add_(&skip).into()),
            Self::Packed { norm, between, conv } => {
                let map = x.map(norm, *between)?;
                let input = Input::Normalized(&map);
                Ok(conv.forward_measured(x.pixels(), input, Skip::Replaced(skip), Products::Fp32)?.into())
            }
        }
    }

    fn plain(&self, x: &Features) -> Result<Tensor, Error> {
        match self {
            Self::Plain { groups, weight, bias, between, conv } => {
                let mut x = x.pixels().group_norm(*groups, Some(weight), Some(bias), GROUP_NORM_EPS, false);
                // Written over: the largest tensors of the decoder are not held twice.
                conv.forward(&if *between == Between::Silu { x.silu_() } else { x })
            }
            Self::Packed { .. } => self.forward(x),
        }
    }
}
