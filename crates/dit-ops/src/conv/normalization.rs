use tch::{Device, Kind, Tensor};

use super::statistics::{Statistics, Total};
use crate::{element::values, error::OpsError};

/// Group normalisation (Wu & He 2018) with affine parameters, as a map of each channel.
#[derive(Debug)]
pub struct GroupNorm {
    groups: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f64,
}

/// What a normalisation makes of each channel of each image: scale·x + shift, then perhaps SiLU.
#[derive(Debug)]
pub struct Normalization {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) silu: bool,
}

impl Normalization {
    pub(super) fn len(&self) -> usize {
        self.scale.len()
    }

    /// Followed by SiLU, x·σ(x).
    #[must_use]
    pub fn then_silu(self) -> Self {
        Self { silu: true, ..self }
    }
}

impl GroupNorm {
    /// Of `groups` groups; `weight` and `bias` are (C), of any floating-point kind; `eps` is added to the variance.
    ///
    /// # Errors
    /// [`OpsError::Shape`] where the shapes are not such, or the groups do not divide C.
    pub fn new(groups: usize, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self, OpsError> {
        let channels = weight.numel();
        if groups == 0 || !channels.is_multiple_of(groups) || weight.dim() != 1 {
            let expected = vec![channels.next_multiple_of(groups.max(1)) as i64];
            return Err(OpsError::Shape { what: "weight", expected, found: weight.size() });
        }
        if bias.size() != weight.size() {
            return Err(OpsError::Shape { what: "bias", expected: weight.size(), found: bias.size() });
        }
        let plain =
            |x: &Tensor| values::<f32>(&x.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous()).to_vec();
        Ok(Self { groups, weight: plain(weight), bias: plain(bias), eps })
    }

    /// The map for `x`, (N, C, H, W); statistics are those of each image and group.
    ///
    /// # Errors
    /// [`OpsError::Shape`] where `x` has not C channels, or no pixels.
    pub fn of(&self, x: &Tensor) -> Result<Normalization, OpsError> {
        self.map(&Statistics::of(x)?)
    }

    /// The map for what `statistics` are of.
    ///
    /// # Errors
    /// [`OpsError::Shape`] where that has not C channels.
    pub fn map(&self, statistics: &Statistics) -> Result<Normalization, OpsError> {
        let (images, channels) = (statistics.images(), self.weight.len());
        if statistics.channels() != channels {
            let found = vec![images as i64, statistics.channels() as i64];
            return Err(OpsError::Shape { what: "statistics", expected: vec![images as i64, channels as i64], found });
        }
        let (mut scales, mut shifts) = (Vec::with_capacity(images * channels), Vec::with_capacity(images * channels));
        let width = channels / self.groups;
        for image in 0..images {
            for (group, totals) in statistics.totals(image).chunks_exact(width).enumerate() {
                let mut total = Total::default();
                totals.iter().for_each(|&channel| total.add(channel));
                let inverse = 1.0 / (total.squares / total.count + self.eps).sqrt();
                for channel in group * width..(group + 1) * width {
                    let scale = inverse * f64::from(self.weight[channel]);
                    scales.push(scale as f32);
                    shifts.push((f64::from(self.bias[channel]) - total.mean * scale) as f32);
                }
            }
        }
        Ok(Normalization { scale: scales, shift: shifts, silu: false })
    }
}
