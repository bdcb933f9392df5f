//! Separable resampling of 8-bit RGB pictures, to the byte what Pillow up to 12 computes: rows before columns, always.
//! Pillow 13 filters columns first where the height shrinks much more than the width, which moves single levels; published
//! latents and reference batches were made before.
//!
//! A filter is stretched by the scale when it shrinks the picture, sampled at the source pixels it covers, normalised to
//! sum 1 and rounded to 22-bit fixed point; rows are filtered first, rounded to 8 bits, then columns. Each pixel depends on no
//! other result, so only those that a crop keeps are computed.

use std::ops::Range;

use crate::Rgb;
use crate::simd::vectorised;

/// Fractional bits of a weight: 32 minus 8 for a pixel and 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    /// The mean over the covered pixels.
    Box,
    /// Keys' cubic convolution with a = −1/2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// The source pixels that one output pixel is made of, and their fixed-point weights.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

impl Window {
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// One axis of a picture as it becomes `output` long, of which the pixels in `kept` are wanted.
struct Axis {
    input: usize,
    output: usize,
    kept: Range<usize>,
}

impl Axis {
    /// One window for each kept pixel. An axis that keeps its extent is not filtered: one pixel of weight 1 each.
    fn windows(&self, filter: Filter) -> Vec<Window> {
        if self.input == self.output {
            return self.kept.clone().map(|first| Window { first, weights: vec![1 << PRECISION_BITS] }).collect();
        }
        let scale = self.input as f64 / self.output as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let window = |index: usize| {
            let center = (index as f64 + 0.5) * scale;
            // Casts saturate: what lies before the picture is its first pixel.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(self.input);
            let raw: Vec<f64> =
                (first..end).map(|pixel| filter.weight((pixel as f64 - center + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = raw.iter().sum();
            let fixed = |weight: f64| {
                let normalised = if sum == 0.0 { weight } else { weight / sum };
                let scaled = normalised * f64::from(1 << PRECISION_BITS);
                (scaled + 0.5f64.copysign(scaled)) as i32 // half away from zero
            };
            Window { first, weights: raw.into_iter().map(fixed).collect() }
        };
        self.kept.clone().map(window).collect()
    }
}

/// Half of each side, rounded down, with a box filter.
pub(crate) fn halve(picture: &Rgb) -> Rgb {
    let (width, height) = (picture.width() / 2, picture.height() / 2);
    if picture.width().is_multiple_of(2) && picture.height().is_multiple_of(2) {
        let mut pixels = vec![0; width * height * 3];
        for (rows, out) in picture.pixels().chunks_exact(width * 12).zip(pixels.chunks_exact_mut(width * 3)) {
            let (upper, lower) = rows.split_at(width * 6);
            halve_rows(upper, lower, out);
        }
        return Rgb::from_parts(width, height, pixels);
    }
    let columns = Axis { input: picture.width(), output: width, kept: 0..width };
    let rows = Axis { input: picture.height(), output: height, kept: 0..height };
    resample(picture, Filter::Box, &columns, &rows)
}

/// The bicubically resized picture's `size` × `size` pixels in the middle (rounded towards the beginning).
///
/// `width` and `height` must be at least `size`.
pub(crate) fn resize_and_crop(picture: &Rgb, (width, height): (usize, usize), size: usize) -> Rgb {
    let axis = |input, output| {
        let first = (output - size) / 2;
        Axis { input, output, kept: first..first + size }
    };
    resample(picture, Filter::Bicubic, &axis(picture.width(), width), &axis(picture.height(), height))
}

fn resample(picture: &Rgb, filter: Filter, columns: &Axis, rows: &Axis) -> Rgb {
    let across = columns.windows(filter);
    let mut down = rows.windows(filter);
    // Rows that no window covers are not filtered.
    let first = down.iter().map(|window| window.first).min().unwrap_or(0);
    let end = down.iter().map(Window::end).max().unwrap_or(0);
    down.iter_mut().for_each(|window| window.first -= first);
    let (stride, width) = (picture.width() * 3, columns.kept.len() * 3);
    let source = picture.pixels()[first * stride..end * stride].chunks(stride * 2);
    let mut filtered = vec![0; width * (end - first)];
    let mut spread = vec![[0; 8]; picture.width()];
    for (rows, out) in source.zip(filtered.chunks_mut(width * 2)) {
        filter_rows(rows, &across, &mut spread, out);
    }
    let mut pixels = vec![0; width * rows.kept.len()];
    for (window, out) in down.iter().zip(pixels.chunks_exact_mut(width)) {
        filter_column(&filtered[window.first * width..], width, &window.weights, out);
    }
    Rgb::from_parts(columns.kept.len(), rows.kept.len(), pixels)
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

vectorised! {
    /// Means of 2 × 2 pixels, rounded half up after each direction.
    fn halve_rows(upper: &[u8], lower: &[u8], out: &mut [u8]) {
        let mean = |a: u8, b: u8| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8;
        let pairs = upper.as_chunks::<6>().0.iter().zip(lower.as_chunks::<6>().0);
        for (pixel, (upper, lower)) in out.as_chunks_mut::<3>().0.iter_mut().zip(pairs) {
            let means = |row: &[u8; 6]| [mean(row[0], row[3]), mean(row[1], row[4]), mean(row[2], row[5])];
            let (upper, lower) = (means(upper), means(lower));
            *pixel = [mean(upper[0], lower[0]), mean(upper[1], lower[1]), mean(upper[2], lower[2])];
        }
    }
}

/// Two rows, or a single last one, through one window a pixel. `spread` is scratch: the rows side by side at four bytes a pixel,
/// which fill a vector.
fn filter_rows(rows: &[u8], windows: &[Window], spread: &mut [[u8; 8]], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::has_avx2() {
        // SAFETY: the processor has every feature that the function is compiled for.
        return unsafe { filter_rows_avx2(rows, windows, spread, out) };
    }
    filter_rows_with(weigh, rows, windows, spread, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn filter_rows_avx2(rows: &[u8], windows: &[Window], spread: &mut [[u8; 8]], out: &mut [u8]) {
    filter_rows_with(|pixels, weights| weigh_avx2(pixels, weights), rows, windows, spread, out);
}

#[inline(always)]
fn filter_rows_with(
    weigh: impl Fn(&[[u8; 8]], &[i32]) -> [u8; 8],
    rows: &[u8],
    windows: &[Window],
    spread: &mut [[u8; 8]],
    out: &mut [u8],
) {
    let (first, second) = rows.split_at(spread.len() * 3);
    let second = if second.is_empty() { first } else { second };
    let pixels = first.as_chunks::<3>().0.iter().zip(second.as_chunks::<3>().0);
    for (spread, (a, b)) in spread.iter_mut().zip(pixels) {
        *spread = [a[0], a[1], a[2], 0, b[0], b[1], b[2], 0];
    }
    let (first, second) = out.split_at_mut(windows.len() * 3);
    let mut second = second.as_chunks_mut::<3>().0.iter_mut();
    for (out, window) in first.as_chunks_mut::<3>().0.iter_mut().zip(windows) {
        let [r, g, b, _, r2, g2, b2, _] = weigh(&spread[window.first..], &window.weights);
        *out = [r, g, b];
        if let Some(out) = second.next() {
            *out = [r2, g2, b2];
        }
    }
}

/// The weighted sum of as many `pixels` as there are weights.
fn weigh(pixels: &[[u8; 8]], weights: &[i32]) -> [u8; 8] {
    let mut sums = [HALF; 8];
    for (pixels, &weight) in pixels.iter().zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(pixels) {
            *sum += i32::from(value) * weight;
        }
    }
    sums.map(clip)
}

/// [`weigh`], spelled out: the compiler would make vectors of consecutive pixels, byte by byte.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn weigh_avx2(pixels: &[[u8; 8]], weights: &[i32]) -> [u8; 8] {
    use std::arch::x86_64::*;
    let mut sums = _mm256_set1_epi32(HALF);
    for (pixels, &weight) in pixels.iter().zip(weights) {
        let values = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*pixels)));
        sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(values, _mm256_set1_epi32(weight)));
    }
    let levels = _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(sums);
    let words = _mm_packus_epi32(_mm256_castsi256_si128(levels), _mm256_extracti128_si256::<1>(levels));
    _mm_cvtsi128_si64(_mm_packus_epi16(words, words)).to_le_bytes()
}

vectorised! {
    /// One output row: the weighted sum of the rows, `stride` bytes each, that `rows` begins with.
    fn filter_column(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
        const LANES: usize = 32;
        let (blocks, rest) = out.as_chunks_mut::<LANES>();
        let whole = blocks.len() * LANES;
        for (index, block) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; LANES];
            for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
                let values = &row[index * LANES..][..LANES];
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(value) * weight;
                }
            }
            *block = sums.map(clip);
        }
        for (column, out) in rest.iter_mut().enumerate() {
            let column = rows.chunks_exact(stride).zip(weights).map(|(row, &weight)| i32::from(row[whole + column]) * weight);
            *out = clip(HALF + column.sum::<i32>());
        }
    }
}
