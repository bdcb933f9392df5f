use std::{arch::aarch64::*, marker::PhantomData, mem::MaybeUninit};

use super::{Layout, OfRows, OfTile, Registers, Weighting, by_functions, singles::singles};
use crate::{cpu::Cpu, element::Element};

singles! {
    /// NEON's registers.
    Neon, neon, QUERIES
}

/// They, their gradients and sums are half of a second-level cache.
const QUERIES: usize = 144;

/// The methods of [`Registers`].
mod functions {
    use super::{
        super::lines::{lines, products},
        *,
    };
    pub(super) use crate::blocks::ROWS;
    use crate::{
        attention::exponential::SERIES,
        neon::block::{add_fp32 as add_products, store_side_by_side},
    };

    pub(super) const COLUMNS: usize = 16;
    /// Times four registers are a line.
    const SIXTEENS: usize = 1;

    lines!(neon, transpose_neon, "neon");
    products!("neon", 1);
    pub(super) use {
        pull_back_tile_singly as pull_back_tile, split_by_lanes_singly as split_by_lanes, weigh_singly as weigh,
    };

    #[target_feature(enable = "neon")]
    pub(super) fn lay_side_by_side<E: Element>(layout: Layout<Neon<E>>, rows: &[u32], place: &mut [u32]) {
        assert!(rows.len() >= layout.tile() && place.len() >= layout.tile());
        for first in (0..layout.words).step_by(4) {
            // SAFETY: each row has a multiple of 4 words, and there is room for as many, as asserted.
            unsafe {
                let row = |row: usize| vld1q_u32(rows.as_ptr().add(row * layout.stride + first));
                let rows = [row(0), row(1), row(2), row(3), row(4), row(5)];
                store_side_by_side(rows, place.as_mut_ptr().add(first * ROWS), ROWS);
            }
        }
    }

    #[target_feature(enable = "neon")]
    pub(super) fn split_by_tiles<E: Element>(layout: Layout<Neon<E>>, rows: &[u32], place: &mut [u32], apart: usize) {
        assert!(rows.len() >= layout.gathered(ROWS) && ROWS * ROWS <= apart);
        assert!(place.len() >= (layout.tiles - 1) * apart + ROWS * ROWS);
        for row in 0..ROWS {
            for tile in 0..layout.tiles {
                // SAFETY: six words from each sixth value of a row on are there, and as many places, as asserted.
                unsafe {
                    let values = rows.as_ptr().add(row * layout.stride + tile * ROWS);
                    let place = place.as_mut_ptr().add(tile * apart + ROWS * row);
                    vst1q_u32(place, vld1q_u32(values));
                    vst1_u32(place.add(4), vld1_u32(values.add(4)));
                }
            }
        }
    }

    /// 2ˣ within two units in the last place, x at most 0; 0 below 2⁻¹⁰⁰, so that nothing is subnormal; NaN of NaN.
    #[target_feature(enable = "neon")]
    #[inline]
    fn exp2(x: Floats) -> Floats {
        let whole = v::round(x);
        let fraction = v::sub(x, whole);
        let mut sum = v::splat(SERIES[0]);
        for &coefficient in &SERIES[1..] {
            sum = v::mul_add(sum, fraction, v::splat(coefficient));
        }
        std::array::from_fn(|i| {
            // Exponents of what is far below wrap around, and are dropped.
            let exponent = vaddq_s32(vcvtq_s32_f32(whole[i]), vdupq_n_s32(127));
            let power = vmulq_f32(sum[i], vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)));
            let far_below = vcltq_f32(x[i], vdupq_n_f32(-100.0));
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(power), far_below))
        })
    }
}
