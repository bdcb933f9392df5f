//! Pixels of an input on their way to the factors: normalised, doubled, padded.

use super::{
    super::{
        Call, Convolution, Input, Pixels, Products,
        winograd::{Block, padded},
    },
    GATHERED,
};
use crate::memory::prefetch;

/// Pixels of one image with their channels' map, as gathering sees them.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    x: Pixels<'a>,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    map: Option<Map<'a>>,
}

#[derive(Clone, Copy)]
struct Map<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    then: Then,
}

/// What follows a normalisation.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    Silu,
    /// As exact as what is rounded to bf16 next asks for.
    RoughSilu,
}

impl<'a> Image<'a> {
    pub(super) fn new(convolution: &Convolution, call: &Call<'a>, image: usize) -> Self {
        let (height, width, channels) = (call.sizes.height, call.sizes.width, convolution.inputs);
        let len = height * width * channels;
        let map = match call.input {
            Input::Plain | Input::Doubled => None,
            Input::Normalized(map) => Some(Map {
                scale: &map.scale[image * channels..][..channels],
                shift: &map.shift[image * channels..][..channels],
                then: match (map.silu, convolution.products) {
                    (false, _) => Then::Nothing,
                    (true, Products::Fp32) => Then::Silu,
                    (true, Products::Bf16) => Then::RoughSilu,
                },
            }),
        };
        let x = match call.x {
            Pixels::Fp32(x) => Pixels::Fp32(&x[image * len..][..len]),
            Pixels::Bf16(x) => Pixels::Bf16(&x[image * len..][..len]),
        };
        Self { x, height, width, channels, map }
    }

    /// Asks for `count` channels of a pixel that will be loaded soon.
    #[inline]
    fn prefetch(&self, row: usize, column: usize, channel: usize, count: usize) {
        let start = (row * self.width + column) * self.channels + channel;
        let (start, bytes) = match self.x {
            Pixels::Fp32(x) => (x.as_ptr().wrapping_add(start).cast::<i8>(), 4 * count),
            Pixels::Bf16(x) => (x.as_ptr().wrapping_add(start).cast::<i8>(), 2 * count),
        };
        for line in (0..bytes).step_by(64) {
            prefetch(start.wrapping_add(line));
        }
    }
}

/// Pixels that are asked for before they are needed.
const AHEAD: usize = 6;

/// One module for each set of instructions.
macro_rules! gather {
    ($set:ident, $features:literal) => {
        pub(super) mod $set {
            use super::*;
            use crate::$set::vector as v;

            /// Sixteen channels from `channel` on of a pixel, mapped; those past the last are 0.
            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) fn load(image: &Image<'_>, row: usize, column: usize, channel: usize) -> v::Floats {
                let mask = v::first(image.channels - channel);
                let start = (row * image.width + column) * image.channels;
                // SAFETY: the mask keeps the loads within the pixel, and within the maps, which are as long.
                unsafe {
                    let x = match image.x {
                        Pixels::Fp32(x) => v::load_within(mask, x[start..][..image.channels].as_ptr().add(channel)),
                        Pixels::Bf16(x) => {
                            v::load_bf16_within(mask, x[start..][..image.channels].as_ptr().add(channel).cast())
                        }
                    };
                    let Some(map) = &image.map else { return x };
                    let scale = v::load_within(mask, map.scale.as_ptr().add(channel));
                    let shift = v::load_within(mask, map.shift.as_ptr().add(channel));
                    let x = v::mul_add(x, scale, shift);
                    match map.then {
                        Then::Nothing => x,
                        Then::Silu => silu(x),
                        Then::RoughSilu => rough_silu(x),
                    }
                }
            }

            /// x·σ(x) = x / (1 + e⁻ˣ).
            #[target_feature(enable = $features)]
            #[inline]
            fn silu(x: v::Floats) -> v::Floats {
                // e⁻ˣ = 2ⁿ·eʳ, |r| ≤ ln 2 / 2, with Taylor's series of eʳ to the seventh power. Beyond ±87 the result no longer changes.
                let y = v::min(v::max(v::sub(v::zero(), x), v::splat(-87.0)), v::splat(87.0));
                let n = v::round(v::mul(y, v::splat(std::f32::consts::LOG2_E)));
                let r = v::sub_product(n, v::splat(0.693_359_4), y);
                let r = v::sub_product(n, v::splat(-2.121_944_4e-4), r);
                let mut p = v::splat(1.0 / 5040.0);
                for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
                    p = v::mul_add(p, r, v::splat(coefficient));
                }
                v::div(x, v::add(v::scale_by_power(p, n), v::splat(1.0)))
            }

            /// The same with a relative error below 2⁻¹²: a shorter series, and an estimate of the quotient.
            #[target_feature(enable = $features)]
            #[inline]
            fn rough_silu(x: v::Floats) -> v::Floats {
                let y = v::mul(x, v::splat(-std::f32::consts::LOG2_E));
                let y = v::min(v::max(y, v::splat(-126.0)), v::splat(126.0));
                // e⁻ˣ = 2ⁿ·2ʳ, |r| ≤ ½, with Taylor's series of 2ʳ to the fourth power, whose coefficients are (ln 2)ᵏ / k!.
                let n = v::round(y);
                let r = v::sub(y, n);
                let mut p = v::splat(0.009_618_129);
                for coefficient in [0.055_504_11, 0.240_226_5, std::f32::consts::LN_2, 1.0] {
                    p = v::mul_add(p, r, v::splat(coefficient));
                }
                v::divide_roughly(x, v::add(v::scale_by_power(p, n), v::splat(1.0)))
            }

            /// Gathers the pixels under a block, [`GATHERED`] channels from `channel` on: (2·rows + 2, 2·columns + 2, GATHERED).
            #[target_feature(enable = $features)]
            pub(in super::super) fn gather<const DOUBLED: bool>(
                image: &Image<'_>,
                block: &Block,
                channel: usize,
                pixels: &mut [f32],
            ) {
                let count = (padded(image.channels) - channel).min(GATHERED);
                let times = if DOUBLED { 2 } else { 1 };
                let (rows, columns) = (2 * block.rows + 2, 2 * block.columns + 2);
                let mut places = pixels.chunks_exact_mut(GATHERED);
                for row in 0..rows {
                    // In pixels of the padded input, whose first row is one of zeros.
                    let y = (2 * block.top + row).wrapping_sub(1);
                    for column in 0..columns {
                        // A few pixels ahead, in the next row where this one ends: pieces of pixels are no run that the CPU foresees.
                        let (down, ahead) =
                            if column + AHEAD < columns { (0, column + AHEAD) } else { (1, column + AHEAD - columns) };
                        let (ahead_y, ahead_x) =
                            (y.wrapping_add(down) / times, (2 * block.left + ahead).wrapping_sub(1) / times);
                        if ahead_y < image.height && ahead_x < image.width {
                            image.prefetch(ahead_y, ahead_x, channel, count);
                        }
                        let x = (2 * block.left + column).wrapping_sub(1);
                        let Some(place) = places.next() else { return };
                        if y >= times * image.height || x >= times * image.width {
                            place[..count].fill(0.0);
                            continue;
                        }
                        for at in (0..count).step_by(16) {
                            let values = load(image, y / times, x / times, channel + at);
                            // SAFETY: `count` is a multiple of 16, and no more than the place has.
                            unsafe { v::store(place.as_mut_ptr().add(at), values) };
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
gather!(avx512, "avx512f,avx512bw,avx512dq,avx512vl");
#[cfg(target_arch = "x86_64")]
gather!(avx2, "avx2,fma");
#[cfg(target_arch = "aarch64")]
gather!(neon, "neon");
