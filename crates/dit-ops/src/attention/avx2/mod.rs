//! Attention with AVX2 in fp32, whatever the tensors' kind: forward, and backward with the weights made anew, so that what is held grows
//! with the sequence and not with its square. What is multiplied lies as [`block`](crate::avx2::block)'s inner loop wants it: six rows side
//! by side, sixteen columns to a line.

mod backward;
mod forward;

use std::{arch::x86_64::*, f32::consts::LOG2_E, mem::MaybeUninit};

pub(crate) use backward::{Given, pull_back};
pub(crate) use forward::self_attention;

use tch::Tensor;

use super::{Shape, softmax::SERIES, x86::Head};
use crate::{
    aligned::Aligned,
    avx2::{
        block::{ROWS, fp32::add_products, store_side_by_side},
        vector::{self as v, Floats},
    },
    element::Element,
    gemm::Line,
    transpose::transpose_avx2,
};

/// Columns of a tile: words of a line.
const LANES: usize = 16;
/// Words of a tile of sums.
const TILE: usize = ROWS * LANES;

/// What makes a query's weights of its scores: exp(scale·(score − `greatest`)) · `factor`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weighting {
    greatest: f32,
    /// 1 / the sum of exponentials.
    factor: f32,
}

/// What the forward pass keeps for the backward pass, besides what it is given and gives.
pub(crate) struct Kept {
    /// (N·H·T).
    weightings: Vec<Weighting>,
    /// (N, T, H·head), what rounding took from the results: in fp32, nothing.
    remainders: Option<Tensor>,
}

/// A head's values of a tensor that has `parts` for each token: of `qkv` query, key and value, of results one.
#[derive(Clone, Copy)]
struct Part<'a, E> {
    all: &'a [E],
    parts: usize,
    part: usize,
    head: Head,
}

impl<'a, E: Element> Part<'a, E> {
    #[inline(always)]
    fn start(self, token: usize) -> usize {
        self.head.start(self.parts, self.part, token)
    }

    /// Those of one token.
    #[inline(always)]
    fn row(self, token: usize) -> &'a [E] {
        self.head.row(self.all, self.parts, self.part, token)
    }
}

/// Words of six values of each row, of so many tiles of rows.
fn by_six(tiles: usize) -> usize {
    tiles * ROWS * ROWS
}

/// How a head's values lie in fp32.
#[derive(Clone, Copy)]
struct Layout {
    /// Values of a row.
    head: usize,
}

impl Layout {
    /// From one row to the next where rows are gathered: whole lines.
    fn stride(self) -> usize {
        self.head.next_multiple_of(LANES)
    }

    /// Words of so many gathered rows, and of those that are read with the last one's.
    fn rows(self, count: usize) -> usize {
        count * self.stride() + LANES
    }

    /// Tiles that a row's values are, as rows of a product.
    fn tiles(self) -> usize {
        self.head.div_ceil(ROWS)
    }

    /// Words of a product whose rows are a row's values: whole tiles, and whole lines when it is turned back.
    fn turned(self) -> usize {
        (self.tiles() * ROWS).max(self.stride()) * LANES
    }

    /// Words of six rows side by side.
    fn tile(self) -> usize {
        ROWS * self.stride()
    }

    /// Words of sixteen rows as columns.
    fn lane(self) -> usize {
        LANES * self.stride()
    }

    /// The rows of `count` tokens from `first` on; those from `end` on are zero.
    #[target_feature(enable = "avx2,fma")]
    fn gather<E: Element>(self, values: Part<'_, E>, (first, count): (usize, usize), end: usize, place: &mut [f32]) {
        /// Rows that lie apart are not foreseen by the CPU: so many tokens before it is their turn they are asked for.
        const AHEAD: usize = 12;
        for (at, place) in place.chunks_exact_mut(self.stride()).enumerate().take(count) {
            let token = first + at;
            let (there, rest) = place.split_at_mut(if token < end { self.head } else { 0 });
            if token < end {
                let ahead = values.all.as_ptr().wrapping_add(values.start(token + AHEAD));
                for line in 0..(self.head * size_of::<E>()).div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast::<i8>().wrapping_add(64 * line));
                }
                for (place, value) in there.iter_mut().zip(values.row(token)) {
                    *place = value.to_f32();
                }
            }
            rest.fill(0.0);
        }
    }

    /// Six gathered rows side by side.
    #[target_feature(enable = "avx2,fma")]
    fn lay_side_by_side(self, rows: &[f32], place: &mut [f32]) {
        assert!(rows.len() >= self.tile() && place.len() >= self.tile());
        assert_aligned(place);
        for first in (0..self.head).step_by(8) {
            // SAFETY: each row has a multiple of 8 words; there is room for as many, from a cache line's start on, as asserted.
            unsafe {
                let row = |row: usize| _mm256_loadu_si256(rows.as_ptr().add(row * self.stride() + first).cast());
                let rows = [row(0), row(1), row(2), row(3), row(4), row(5)];
                store_side_by_side(rows, place.as_mut_ptr().add(first * ROWS).cast(), ROWS);
            }
        }
    }

    /// The values of `count` gathered rows, six of each at a time: row `first` + r's values from 6·t on to `place` + t·`apart` + 6·(`first` + r).
    #[target_feature(enable = "avx2,fma")]
    fn part_by_six(self, rows: &[f32], (first, count): (usize, usize), place: &mut [f32], apart: usize) {
        assert!(rows.len() >= self.rows(count) && ROWS * (first + count) <= apart);
        assert!(place.len() >= self.tiles() * apart && apart.is_multiple_of(2));
        assert_aligned(place);
        for row in 0..count {
            for tile in 0..self.tiles() {
                // SAFETY: eight words from each value of a row on are there, and six places from an even number of words on, as asserted.
                unsafe {
                    let values = rows.as_ptr().add(row * self.stride() + tile * ROWS);
                    let place = place.as_mut_ptr().add(tile * apart + ROWS * (first + row));
                    _mm_storeu_ps(place, _mm_loadu_ps(values));
                    _mm_storel_pd(place.add(4).cast(), _mm_castps_pd(_mm_loadu_ps(values.add(4))));
                }
            }
        }
    }

    /// The values of sixteen gathered rows, sixteen of each at a time: line r of sixteen is row r's.
    #[target_feature(enable = "avx2,fma")]
    fn part_by_sixteen(self, rows: &[f32], place: &mut [f32]) {
        assert!(rows.len() >= self.lane() && place.len() >= self.lane());
        for row in 0..LANES {
            let values = rows[row * self.stride()..][..self.stride()].as_chunks::<LANES>().0;
            for (part, values) in values.iter().enumerate() {
                place[(part * LANES + row) * LANES..][..LANES].copy_from_slice(values);
            }
        }
    }

    /// Sixteen gathered rows as the columns of lines, one for each value.
    #[target_feature(enable = "avx2,fma")]
    fn turn(self, rows: &[f32], lines: &mut [f32]) {
        assert!(rows.len() >= self.lane() && lines.len() >= self.lane());
        assert_aligned(lines);
        // SAFETY: each row has a multiple of 8 words, and there is a line for each, which begins at a cache line, as asserted.
        unsafe {
            let lines = lines.as_mut_ptr().cast::<MaybeUninit<Line>>();
            transpose_avx2::<false>(rows.as_ptr().cast(), self.stride(), self.stride(), lines, 1);
        }
    }

    /// Lines, one for each value, as sixteen rows of the stage, of which `write` is given the first `count`.
    #[target_feature(enable = "avx2,fma")]
    fn turn_back(self, lines: &[f32], count: usize, stage: &mut [f32], mut write: impl FnMut(usize, &mut [f32])) {
        assert!(lines.len() >= self.lane() && stage.len() >= self.lane());
        assert_aligned(stage);
        for first in (0..self.head).step_by(LANES) {
            // SAFETY: there are sixteen lines from each multiple of sixteen values on, and as many rows of the stage, whose lines begin at
            // cache lines.
            unsafe {
                let place = stage.as_mut_ptr().add(first).cast::<MaybeUninit<Line>>();
                let lines = lines.as_ptr().add(first * LANES).cast();
                transpose_avx2::<false>(lines, LANES, LANES, place, self.stride() / LANES);
            }
        }
        for (at, values) in stage.chunks_exact_mut(self.stride()).take(count).enumerate() {
            write(at, &mut values[..self.head]);
        }
    }
}

/// Writes fp32 values as elements.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn write<E: Element>(values: &[f32], place: &mut [MaybeUninit<E>]) {
    for (place, &value) in place.iter_mut().zip(values) {
        place.write(E::from_f32(value));
    }
}

/// The products of a tile, six rows side by side, and of a lane are added to a tile of sums if it `goes_on`, or become it.
///
/// # Panics
/// If any of them has fewer than `depth` words.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn multiply(tile: &[f32], lane: &[f32], depth: usize, sums: &mut [f32], goes_on: bool) {
    assert!(tile.len() >= ROWS * depth && lane.len() >= LANES * depth && sums.len() >= TILE);
    assert_aligned(lane);
    let sums = (sums.as_mut_ptr().cast(), LANES);
    // SAFETY: as asserted.
    unsafe { add_products::<ROWS, 1>(tile.as_ptr().cast(), lane.as_ptr().cast(), depth, sums, goes_on) }
}

/// Panics if the words do not begin at a cache line.
#[inline(always)]
fn assert_aligned(words: &[f32]) {
    assert!(words.as_ptr().addr().is_multiple_of(64), "words from within a cache line");
}

/// exp(scale·(score − greatest)), `factor` being scale·log₂e: the same bits in the forward and in the backward pass.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn exponentials(scores: Floats, greatest: Floats, factor: Floats) -> Floats {
    exp2(v::mul(v::sub(scores, greatest), factor))
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

#[cfg(test)]
mod tests;
