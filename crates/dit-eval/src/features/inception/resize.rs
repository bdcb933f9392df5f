//! From pictures of any size to what the network takes: 299 × 299, channels last.

use tch::{Device, Kind, Tensor};

use crate::Error;

/// The side of the network's input, in pixels.
pub(crate) const SIDE: i64 = 299;

/// How pictures become the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preprocessing {
    /// As in the 2015 graph, and so in the evaluator of Dhariwal & Nichol and in torch-fidelity: bilinear with source
    /// coordinate i · s / 299 (not that of pixel centres), then (x − 128) / 128.
    TensorFlow,
    /// As the Python package pytorch-fid does: bilinear between pixel centres, then x / 127.5 − 1. Numbers differ from those of
    /// the other way.
    PytorchFid,
}

impl Preprocessing {
    /// uint8 (N, H, W, 3) → fp32 (N, 3, 299, 299) on `device`, channels last in memory.
    pub(crate) fn apply(self, pictures: &Tensor, device: Device) -> Result<Tensor, Error> {
        let pictures = pictures.f_to_device(device)?.f_to_kind(Kind::Float)?;
        match self {
            Self::TensorFlow => {
                let columns = interpolate(&pictures, 2)?;
                let both = interpolate(&columns, 1)?;
                // Powers of two: exact, in whichever order.
                Ok(((both - 128.0) / 128.0).f_permute([0, 3, 1, 2])?)
            }
            Self::PytorchFid => {
                let scaled = pictures.f_permute([0, 3, 1, 2])? / 255.0;
                Ok(scaled.f_upsample_bilinear2d([SIDE, SIDE], false, None, None)? * 2.0 - 1.0)
            }
        }
    }
}

/// Linear interpolation to 299 along dimension `dim` of (N, H, W, C), with fp32 coordinates as TensorFlow's kernel has them.
fn interpolate(x: &Tensor, dim: i64) -> Result<Tensor, Error> {
    let extent = x.size().get(dim as usize).copied().unwrap_or(0);
    if extent == SIDE {
        return Ok(x.shallow_clone());
    }
    let scale = extent as f32 / SIDE as f32;
    let at: Vec<f32> = (0..SIDE).map(|index| index as f32 * scale).collect();
    let lower: Vec<i64> = at.iter().map(|at| at.floor() as i64).collect();
    let upper: Vec<i64> = lower.iter().map(|lower| (lower + 1).min(extent - 1)).collect();
    let fraction: Vec<f32> = at.iter().map(|at| at - at.floor()).collect();
    let shape = if dim == 1 { [1, SIDE, 1, 1] } else { [1, 1, SIDE, 1] };
    let device = x.device();
    let fraction = Tensor::from_slice(&fraction).view(shape).f_to_device(device)?;
    let take = |index: &[i64]| x.f_index_select(dim, &Tensor::from_slice(index).f_to_device(device)?);
    let low = take(&lower)?;
    Ok(&low + (take(&upper)? - &low) * fraction)
}
