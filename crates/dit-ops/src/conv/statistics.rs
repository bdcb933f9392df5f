use tch::{Kind, Tensor};

use super::channels_innermost;
use crate::{
    element::values,
    error::OpsError,
    parallel::{self, Destination},
    simd::multiversion,
};

/// Pixels whose statistics are summed in fp32 before they are combined in fp64: a fixed number, so that threads do not show.
const PIXELS: usize = 512;
/// Channels at a time: those of one register.
const LANES: usize = 16;

/// Sums of every channel of some images over parts of their pixels, from which a group normalisation has its means and variances.
///
/// A part's values are summed less its first one, in fp32, so that a large mean costs no digits; parts are combined in fp64.
/// Which pixels are a part depends on the image's sizes alone.
#[derive(Debug)]
pub struct Statistics {
    images: usize,
    channels: usize,
    /// Pixels of each part, the same for every image.
    counts: Vec<u32>,
    /// (images, parts, 3, channels): first value, sum, sum of squares.
    sums: Vec<f32>,
}

/// Where the threads of a convolution put their sums.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    channels: usize,
    parts: usize,
    start: Destination<f32>,
}

impl Parts {
    /// A part's three rows of sums, from `channel` on.
    ///
    /// # Safety
    /// Image, part and channel exist, the statistics outlive the use of the pointers, and no other thread touches these sums.
    pub(super) unsafe fn rows(self, image: usize, part: usize, channel: usize) -> [*mut f32; 3] {
        let row = (image * self.parts + part) * 3;
        // SAFETY: the caller's promise.
        [0, 1, 2].map(|i| unsafe { self.start.at((row + i) * self.channels + channel) })
    }
}

/// Count, mean, and sum of squares about the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Total {
    pub(super) count: f64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

impl Total {
    /// Both together: Chan, Golub & LeVeque 1983, eq. 2.1.
    pub(super) fn add(&mut self, other: Self) {
        let count = self.count + other.count;
        let difference = other.mean - self.mean;
        self.mean += difference * other.count / count;
        self.squares += other.squares + difference * difference * self.count * other.count / count;
        self.count = count;
    }
}

impl Statistics {
    /// Those of `x`, (N, C, H, W), in a pass of their own.
    ///
    /// # Errors
    /// [`OpsError::Shape`] where `x` is not such, or has no elements.
    pub fn of(x: &Tensor) -> Result<Self, OpsError> {
        let found = x.size();
        let [n, c, h, w] = found[..] else {
            return Err(OpsError::Shape { what: "x", expected: vec![-1; 4], found });
        };
        if found.contains(&0) {
            return Err(OpsError::Shape { what: "x", expected: vec![n.max(1), c.max(1), h.max(1), w.max(1)], found });
        }
        let x = channels_innermost(x, Kind::Float); // (N, H, W, C)
        let (channels, pixels) = (c as usize, (h * w) as usize);
        let count = |block: usize| PIXELS.min(pixels - block * PIXELS);
        let counts: Vec<u32> = (0..pixels.div_ceil(PIXELS)).map(|block| count(block) as u32).collect();
        let mut statistics = Self::unset(n as usize, channels, counts);
        let (blocks, parts, x) = (statistics.counts.len(), statistics.parts(), values::<f32>(&x));
        parallel::for_each(statistics.images * blocks, &|task| {
            let (image, block) = (task / blocks, task % blocks);
            let first = image * pixels + block * PIXELS;
            // SAFETY: the statistics have such a part, which is this task's; its three rows lie one after the other.
            let sums = unsafe { std::slice::from_raw_parts_mut(parts.rows(image, block, 0)[0], 3 * channels) };
            add_up(&x[first * channels..(first + count(block)) * channels], sums);
        });
        Ok(statistics)
    }

    /// Sums that are to be written: of `images` images, in parts of `counts` pixels.
    pub(super) fn unset(images: usize, channels: usize, counts: Vec<u32>) -> Self {
        let sums = vec![0.0; images * counts.len() * 3 * channels];
        Self { images, channels, counts, sums }
    }

    pub(super) fn parts(&mut self) -> Parts {
        Parts { channels: self.channels, parts: self.counts.len(), start: Destination::new(self.sums.as_mut_ptr()) }
    }

    pub(super) fn images(&self) -> usize {
        self.images
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Each channel of an image.
    pub(super) fn totals(&self, image: usize) -> Vec<Total> {
        let len = self.counts.len() * 3 * self.channels;
        let sums = &self.sums[image * len..][..len];
        let mut totals = vec![Total::default(); self.channels];
        let destination = Destination::new(totals.as_mut_ptr());
        parallel::for_each(self.channels.div_ceil(LANES), &|block| {
            let at = block * LANES;
            // SAFETY: each task has totals of its own, within `totals`.
            let totals = unsafe { destination.slice(at, LANES.min(self.channels - at)) };
            combine(sums, self.channels, &self.counts, at, totals);
        });
        totals
    }
}

multiversion! {
    /// Totals of some channels from `at` on. Sums about each part's first value become sums about the very first one: no digits
    /// are lost, as values of a channel are near each other.
    fn combine(sums: &[f32], channels: usize, counts: &[u32], at: usize, totals: &mut [Total]) {
        let count: f64 = counts.iter().map(|&count| f64::from(count)).sum();
        let width = totals.len();
        let (mut about, mut sum, mut squares) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
        about[..width].iter_mut().zip(&sums[at..]).for_each(|(about, &first)| *about = f64::from(first));
        for (part, &count) in sums.chunks_exact(3 * channels).zip(counts) {
            let count = f64::from(count);
            let mut rows = [[0.0f32; LANES]; 3];
            for (row, lanes) in rows.iter_mut().enumerate() {
                lanes[..width].copy_from_slice(&part[row * channels + at..][..width]);
            }
            for lane in 0..LANES {
                let shift = f64::from(rows[0][lane]) - about[lane];
                let (part_sum, part_squares) = (f64::from(rows[1][lane]), f64::from(rows[2][lane]));
                sum[lane] += part_sum + count * shift;
                squares[lane] += part_squares + shift * (2.0 * part_sum + count * shift);
            }
        }
        for (lane, total) in totals.iter_mut().enumerate() {
            let squares = (squares[lane] - sum[lane] * sum[lane] / count).max(0.0);
            *total = Total { count, mean: about[lane] + sum[lane] / count, squares };
        }
    }
}

multiversion! {
    /// A part's three rows of sums.
    fn add_up(x: &[f32], sums: &mut [f32]) {
        let channels = sums.len() / 3;
        for at in (0..channels).step_by(LANES) {
            let width = LANES.min(channels - at);
            let (mut first, mut sum, mut squares) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
            first[..width].copy_from_slice(&x[at..at + width]);
            let mut add = |lane: usize, value: f32| {
                let value = value - first[lane];
                sum[lane] += value;
                squares[lane] += value * value;
            };
            for pixel in x.chunks_exact(channels) {
                match width {
                    LANES => (0..LANES).for_each(|lane| add(lane, pixel[at + lane])),
                    _ => (0..width).for_each(|lane| add(lane, pixel[at + lane])),
                }
            }
            for (row, lanes) in [first, sum, squares].into_iter().enumerate() {
                sums[row * channels + at..][..width].copy_from_slice(&lanes[..width]);
            }
        }
    }
}
