use std::{arch::x86_64::*, marker::PhantomData, mem::MaybeUninit};

use super::{Layout, OfRows, OfTile, Registers, Rows, Weighting, by_functions};
use crate::{cpu::Cpu, element::Element};

/// AVX2's registers: in fp32, whatever the tensors' kind.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<E>(PhantomData<E>);

impl<E: Element> Avx2<E> {
    pub(crate) fn of(cpu: Cpu) -> Option<Self> {
        cpu.avx2.then_some(Self(PhantomData))
    }
}

impl<E: Element> Registers for Avx2<E> {
    type Element = E;
    const PER_WORD: usize = 1;
    const ROWS: usize = functions::ROWS;
    const COLUMNS: usize = functions::COLUMNS;
    // Half of a second-level cache.
    const QUERIES: usize = 144;

    by_functions! {
        functions::gather(layout: Layout, rows: Rows<'_, E>, place: &mut [u32]);
        functions::lay_side_by_side(layout: Layout, rows: &[u32], place: &mut [u32]);
        functions::turn(layout: Layout, rows: &[u32], lines: &mut [u32]);
        functions::part_by_tiles(layout: Layout, rows: &[u32], count: usize, place: &mut [u32], apart: usize);
        functions::part_by_lanes(layout: Layout, rows: &[u32], place: &mut [u32]);
        functions::multiply(tile: &[u32], lane: &[u32], depth: usize, sums: &mut [u32], goes_on: bool);
        functions::multiply_rows(rows: &[u32], lane: &[u32], depth: usize, sums: (&mut [u32], usize), goes_on: bool);
        functions::weigh(scores: &mut [u32], keys: usize, factor: f32, weightings: &mut [Weighting]);
        functions::pull_back_tile(scores: &[u32], of_weights: &[u32], of_rows: OfRows<'_>, place: OfTile<'_>);
        functions::turn_back(layout: Layout, lines: &[u32], rows: &mut [f32]);
        functions::write(values: &[f32], factor: f32, place: &mut [MaybeUninit<E>]);
        functions::write_remainders(values: &[f32], factor: f32, place: &mut [MaybeUninit<E>]);
        functions::dot(a: &[E], b: &[E]) -> f32;
    }
}

/// The methods of [`Registers`].
mod functions {
    use std::f32::consts::LOG2_E;

    use super::{
        super::{self as flash, assert_aligned},
        *,
    };
    pub(super) use crate::avx2::block::ROWS;
    use crate::{
        attention::softmax::SERIES,
        avx2::{
            block::{fp32::add_products, store_side_by_side},
            vector::{self as v, Floats},
        },
        gemm::Line,
        transpose::transpose_avx2,
    };

    pub(super) const COLUMNS: usize = 16;
    /// Words of a tile of sums.
    const TILE: usize = ROWS * COLUMNS;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn gather<E: Element>(layout: Layout, rows: Rows<'_, E>, place: &mut [u32]) {
        rows.gather::<Avx2<E>>(layout, place);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn write<E: Element>(values: &[f32], factor: f32, place: &mut [MaybeUninit<E>]) {
        flash::write(values, factor, place);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn write_remainders<E: Element>(values: &[f32], factor: f32, place: &mut [MaybeUninit<E>]) {
        flash::write_remainders(values, factor, place);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot<E: Element>(a: &[E], b: &[E]) -> f32 {
        flash::dot(a, b)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn lay_side_by_side(layout: Layout, rows: &[u32], place: &mut [u32]) {
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
    pub(super) fn part_by_tiles(layout: Layout, rows: &[u32], count: usize, place: &mut [u32], apart: usize) {
        assert!(rows.len() >= layout.gathered(count) && ROWS * count <= apart);
        assert!(place.len() >= (layout.tiles - 1) * apart + ROWS * count);
        for row in 0..count {
            for tile in 0..layout.tiles {
                // SAFETY: eight words from each value of a row on are there, and six places, as asserted.
                unsafe {
                    let values = rows.as_ptr().add(row * layout.stride + tile * ROWS);
                    let place = place.as_mut_ptr().add(tile * apart + ROWS * row);
                    _mm_storeu_si128(place.cast(), _mm_loadu_si128(values.cast()));
                    _mm_storel_epi64(place.add(4).cast(), _mm_loadl_epi64(values.add(4).cast()));
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn part_by_lanes(layout: Layout, rows: &[u32], place: &mut [u32]) {
        assert!(rows.len() >= layout.lane() && place.len() >= layout.lane());
        for (row, values) in rows.chunks_exact(layout.stride).enumerate().take(COLUMNS) {
            for (group, values) in values.as_chunks::<COLUMNS>().0.iter().enumerate() {
                place[(group * COLUMNS + row) * COLUMNS..][..COLUMNS].copy_from_slice(values);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn turn(layout: Layout, rows: &[u32], lines: &mut [u32]) {
        assert!(rows.len() >= layout.lane() && lines.len() >= layout.lane());
        assert_aligned(lines);
        // SAFETY: each row has a multiple of 8 words, and there is a line for each, which begins at a cache line, as asserted.
        unsafe {
            let lines = lines.as_mut_ptr().cast::<MaybeUninit<Line>>();
            transpose_avx2::<false>(rows.as_ptr(), layout.stride, layout.stride, lines, 1);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn turn_back(layout: Layout, lines: &[u32], rows: &mut [f32]) {
        assert!(lines.len() >= layout.turned() && rows.len() >= COLUMNS * layout.row());
        assert_aligned(rows);
        for first in (0..layout.head).step_by(COLUMNS) {
            // SAFETY: there are sixteen lines from each multiple of sixteen values on, and as many rows, whose lines begin at cache lines.
            unsafe {
                let place = rows.as_mut_ptr().add(first).cast::<MaybeUninit<Line>>();
                let lines = lines.as_ptr().add(first * COLUMNS);
                transpose_avx2::<false>(lines, COLUMNS, COLUMNS, place, layout.row() / COLUMNS);
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn multiply(tile: &[u32], lane: &[u32], depth: usize, sums: &mut [u32], goes_on: bool) {
        assert!(tile.len() >= ROWS * depth && lane.len() >= COLUMNS * depth && sums.len() >= TILE);
        assert_aligned(lane);
        let sums = (sums.as_mut_ptr(), COLUMNS);
        // SAFETY: as asserted.
        unsafe { add_products::<ROWS, 1>(tile.as_ptr(), lane.as_ptr(), depth, sums, goes_on) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn multiply_rows(
        rows: &[u32],
        lane: &[u32],
        depth: usize,
        (sums, apart): (&mut [u32], usize),
        goes_on: bool,
    ) {
        assert!(depth <= COLUMNS && rows.len() >= TILE && lane.len() >= COLUMNS * depth);
        assert!(sums.len() >= (ROWS - 1) * apart + COLUMNS);
        assert_aligned(lane);
        // SAFETY: as asserted.
        unsafe {
            add_products::<1, COLUMNS>(rows.as_ptr(), lane.as_ptr(), depth, (sums.as_mut_ptr(), apart), goes_on);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn weigh(scores: &mut [u32], keys: usize, factor: f32, weightings: &mut [Weighting]) {
        let lines = &mut scores.as_chunks_mut::<COLUMNS>().0[..keys];
        let mut greatest = v::splat(f32::NEG_INFINITY);
        for line in lines.iter() {
            greatest = v::max(greatest, load(line));
        }
        let mut sums = v::zero();
        for line in lines {
            let weights = exponentials(load(line), greatest, v::splat(factor));
            sums = v::add(sums, weights);
            store(line, weights);
        }
        let (mut of_lanes, mut factors) = ([0; COLUMNS], [0; COLUMNS]);
        store(&mut of_lanes, greatest);
        store(&mut factors, v::div(v::splat(1.0), sums));
        for (weighting, (greatest, factor)) in weightings.iter_mut().zip(of_lanes.into_iter().zip(factors)) {
            *weighting = Weighting { greatest: f32::from_bits(greatest), factor: f32::from_bits(factor) };
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn pull_back_tile(scores: &[u32], of_weights: &[u32], of_rows: OfRows<'_>, place: OfTile<'_>) {
        let OfRows { weightings, deltas, scale, .. } = of_rows;
        let lines = |words: &'_ [u32]| words.len() >= TILE;
        assert!(lines(scores) && lines(of_weights) && lines(place.weights) && lines(place.of_scores));
        for row in 0..ROWS {
            let Weighting { greatest, factor } = weightings[row];
            let (scores, of_weights) =
                (&scores.as_chunks::<COLUMNS>().0[row], &of_weights.as_chunks::<COLUMNS>().0[row]);
            let exponentials = exponentials(load(scores), v::splat(greatest), v::splat(scale * LOG2_E));
            let weights = v::mul(exponentials, v::splat(factor));
            store(&mut place.weights.as_chunks_mut::<COLUMNS>().0[row], weights);
            let of_weights = v::sub(load(of_weights), v::splat(deltas[row]));
            let of_scores = v::mul(v::mul(weights, v::splat(scale)), of_weights);
            store(&mut place.of_scores.as_chunks_mut::<COLUMNS>().0[row], of_scores);
        }
    }

    /// Bits of fp32.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn load(line: &[u32; COLUMNS]) -> Floats {
        // SAFETY: a line is two registers.
        unsafe { v::load(line.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn store(line: &mut [u32; COLUMNS], values: Floats) {
        // SAFETY: a line is two registers.
        unsafe { v::store(line.as_mut_ptr().cast(), values) };
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
    pub(in crate::attention::flash) fn exp2(x: Floats) -> Floats {
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
