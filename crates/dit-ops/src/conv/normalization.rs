use tch::{Device, Kind, Tensor};

use super::channels_innermost;
use crate::{
    element::values,
    error::OpsError,
    parallel::{self, Destination},
};

/// Pixels whose statistics are summed in fp32 before they are combined in fp64: a fixed number, so that threads do not show.
const PIXELS: usize = 512;

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

/// Sums of one channel over some pixels, less the first of them, so that a large mean costs no digits.
#[derive(Clone, Copy, Default)]
struct Sums {
    first: f32,
    sum: f32,
    squares: f32,
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
        let (found, channels) = (x.size(), self.weight.len());
        let [n, c, h, w] = found[..] else {
            return Err(OpsError::Shape { what: "x", expected: vec![-1, channels as i64, -1, -1], found });
        };
        if c as usize != channels || found.contains(&0) {
            return Err(OpsError::Shape {
                what: "x",
                expected: vec![n.max(1), channels as i64, h.max(1), w.max(1)],
                found,
            });
        }
        let x = channels_innermost(x); // (N, H, W, C)
        let (images, pixels) = (n as usize, (h * w) as usize);
        let blocks = pixels.div_ceil(PIXELS);
        let mut sums = vec![Sums::default(); images * blocks * channels];
        let destination = Destination::new(sums.as_mut_ptr());
        let x = values::<f32>(&x);
        parallel::for_each(images * blocks, &|task| {
            let (image, first) = (task / blocks, task % blocks * PIXELS);
            let end = pixels.min(first + PIXELS);
            let x = &x[(image * pixels + first) * channels..(image * pixels + end) * channels];
            // SAFETY: each task has sums of its own, within `sums`.
            let sums = unsafe { destination.slice(task * channels, channels) };
            add_up(x, sums);
        });
        let mut map =
            Normalization { scale: vec![0.0; images * channels], shift: vec![0.0; images * channels], silu: false };
        let width = channels / self.groups;
        for image in 0..images {
            for group in 0..self.groups {
                let range = group * width..(group + 1) * width;
                let mut total = Total::default();
                for block in 0..blocks {
                    let count = (PIXELS.min(pixels - block * PIXELS)) as f64;
                    let sums = &sums[(image * blocks + block) * channels..][range.clone()];
                    sums.iter().for_each(|sums| total.add(Total::of(count, *sums)));
                }
                let inverse = 1.0 / (total.squares / total.count + self.eps).sqrt();
                for channel in range {
                    let scale = inverse * f64::from(self.weight[channel]);
                    map.scale[image * channels + channel] = scale as f32;
                    map.shift[image * channels + channel] = (f64::from(self.bias[channel]) - total.mean * scale) as f32;
                }
            }
        }
        Ok(map)
    }
}

fn add_up(x: &[f32], sums: &mut [Sums]) {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::Cpu::detect().avx512 {
        // SAFETY: the CPU has the instructions.
        unsafe { add_up_avx512(x, sums) };
        return;
    }
    add_up_portable(x, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add_up_avx512(x: &[f32], sums: &mut [Sums]) {
    add_up_portable(x, sums);
}

#[inline(always)]
fn add_up_portable(x: &[f32], sums: &mut [Sums]) {
    const LANES: usize = 16;
    let channels = sums.len();
    for (part, sums) in sums.chunks_mut(LANES).enumerate() {
        let at = part * LANES;
        let (mut first, mut sum, mut squares) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
        first[..sums.len()].copy_from_slice(&x[at..at + sums.len()]);
        match sums.len() {
            LANES => {
                for pixel in x.chunks_exact(channels) {
                    for (lane, &value) in pixel[at..at + LANES].iter().enumerate() {
                        let value = value - first[lane];
                        sum[lane] += value;
                        squares[lane] += value * value;
                    }
                }
            }
            width => {
                for pixel in x.chunks_exact(channels) {
                    for (lane, &value) in pixel[at..at + width].iter().enumerate() {
                        let value = value - first[lane];
                        sum[lane] += value;
                        squares[lane] += value * value;
                    }
                }
            }
        }
        for (lane, sums) in sums.iter_mut().enumerate() {
            *sums = Sums { first: first[lane], sum: sum[lane], squares: squares[lane] };
        }
    }
}

/// Count, mean, and sum of squares about the mean.
#[derive(Clone, Copy, Default)]
struct Total {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Total {
    fn of(count: f64, sums: Sums) -> Self {
        let (sum, squares) = (f64::from(sums.sum), f64::from(sums.squares));
        Self { count, mean: f64::from(sums.first) + sum / count, squares: (squares - sum * sum / count).max(0.0) }
    }

    /// Both together: Chan, Golub & LeVeque 1983, eq. 2.1.
    fn add(&mut self, other: Self) {
        let count = self.count + other.count;
        let difference = other.mean - self.mean;
        self.mean += difference * other.count / count;
        self.squares += other.squares + difference * difference * self.count * other.count / count;
        self.count = count;
    }
}
