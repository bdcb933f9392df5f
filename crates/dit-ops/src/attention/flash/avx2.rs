use std::{arch::x86_64::*, marker::PhantomData, mem::MaybeUninit};

use super::{Layout, OfRows, OfTile, Registers, Weighting, by_functions, singles::singles};
use crate::{cpu::Cpu, element::Element};

singles! {
    /// AVX2's registers.
    Avx2, avx2, QUERIES
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
        avx2::block::{fp32::add_products, store_side_by_side},
    };

    pub(super) const COLUMNS: usize = 16;
    /// Times two registers are a line.
    const SIXTEENS: usize = 1;

    lines!(avx2, transpose_avx2, "avx2,fma");
    products!("avx2,fma", 1);
    pub(super) use {
        pull_back_tile_singly as pull_back_tile, split_by_lanes_singly as split_by_lanes, weigh_singly as weigh,
    };

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn lay_side_by_side<E: Element>(layout: Layout<Avx2<E>>, rows: &[u32], place: &mut [u32]) {
        assert!(rows.len() >= layout.tile() && place.len() >= layout.tile());
        assert_aligned(place);
        for first in (0..layout.words).step_by(8) {
            // SAFETY: each row has a multiple of 8 words; there is room for as many, from a cache line's start on, as asserted.
            unsafe {
                let row = |row: usize| _mm256_loadu_si256(rows.as_ptr().add(row * layout.stride + first).cast());
                let rows = [row(0), row(1), row(2), row(3), row(4), row(5)];
                store_side_by_side(rows, place.as_mut_ptr().add(first * ROWS), ROWS);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn split_by_tiles<E: Element>(layout: Layout<Avx2<E>>, rows: &[u32], place: &mut [u32], apart: usize) {
        assert!(rows.len() >= layout.gathered(ROWS) && ROWS * ROWS <= apart);
        assert!(place.len() >= (layout.tiles - 1) * apart + ROWS * ROWS);
        for row in 0..ROWS {
            for tile in 0..layout.tiles {
                // SAFETY: six words from each sixth value of a row on are there, and as many places, as asserted.
                unsafe {
                    let values = rows.as_ptr().add(row * layout.stride + tile * ROWS);
                    let place = place.as_mut_ptr().add(tile * apart + ROWS * row);
                    _mm_storeu_si128(place.cast(), _mm_loadu_si128(values.cast()));
                    _mm_storel_epi64(place.add(4).cast(), _mm_loadl_epi64(values.add(4).cast()));
                }
            }
        }
    }

    /// 2ˣ within two units in the last place, x at most 0; 0 below 2⁻¹⁰⁰, so that nothing is subnormal; NaN of NaN.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn exp2(x: Floats) -> Floats {
        /// Added, it leaves the nearest whole number in the lowest bits, and 127 more, an exponent's.
        const ROUNDING: f32 = 12_582_912.0 + 127.0;
        let shifted = v::add(x, v::splat(ROUNDING));
        let fraction = v::sub(x, v::sub(shifted, v::splat(ROUNDING)));
        let mut sum = v::splat(SERIES[0]);
        for &coefficient in &SERIES[1..] {
            sum = v::mul_add(sum, fraction, v::splat(coefficient));
        }
        let power = v::mul(sum, [power(shifted[0]), power(shifted[1])]);
        [unless_far_below(x[0], power[0]), unless_far_below(x[1], power[1])]
    }

    /// 0 where x is below −100, `power` elsewhere and of NaN.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn unless_far_below(x: __m256, power: __m256) -> __m256 {
        _mm256_and_ps(power, _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(-100.0)))
    }

    /// The numbers whose exponents are the lowest bits.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn power(exponents: __m256) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(exponents)))
    }
}
