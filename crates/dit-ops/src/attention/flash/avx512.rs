use std::{arch::x86_64::*, marker::PhantomData, mem::MaybeUninit};

use super::{
    Layout, OfRows, OfTile, Registers, Weighting, by_functions,
    lines::{lines, products},
};
use crate::{
    attention::softmax::exp2,
    avx512::tile::{dot_bf16, dot_f32},
    cpu::Cpu,
    element::Bf16,
    gemm::Words,
    transpose::transpose_four,
};

lines!(avx512, transpose_avx512, "avx512f,avx512bw,avx512dq,avx512vl");

/// AVX-512's registers: products in fp32, or of bf16 by AVX-512 BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<E>(PhantomData<E>);

impl Avx512<f32> {
    /// Where the CPU has them.
    pub(crate) fn detect() -> Option<Self> {
        Words::F32.in_avx512(Cpu::detect()).then_some(Self(PhantomData))
    }
}

impl Avx512<Bf16> {
    /// Where the CPU has them.
    pub(crate) fn detect() -> Option<Self> {
        Words::Bf16.in_avx512(Cpu::detect()).then_some(Self(PhantomData))
    }
}

/// Rows of a tile, whose sums are sixteen registers: for as many products ten words or registers are read.
const ROWS: usize = 8;
const COLUMNS: usize = 32;
/// Registers of a line.
const SIXTEENS: usize = COLUMNS / 16;

macro_rules! registers {
    ($element:ty, $module:ident, $per_word:literal) => {
        impl Registers for Avx512<$element> {
            type Element = $element;
            const PER_WORD: usize = $per_word;
            const ROWS: usize = ROWS;
            const COLUMNS: usize = COLUMNS;
            // What they and 32 keys give each other is 8 kB for each factor in bf16, and 16 in fp32.
            const QUERIES: usize = 128;

            by_functions! {
                $module::lay_side_by_side(layout: Layout<Self>, rows: &[u32], place: &mut [u32]);
                $module::turn(layout: Layout<Self>, rows: &[u32], lines: &mut [u32]);
                $module::split_by_tiles(layout: Layout<Self>, rows: &[u32], place: &mut [u32], apart: usize);
                $module::split_by_lanes(layout: Layout<Self>, rows: &[u32], place: &mut [u32]);
                $module::multiply(tile: &[u32], lane: &[u32], depth: usize, sums: &mut [u32], goes_on: bool);
                $module::multiply_rows(rows: &[u32], lane: &[u32], depth: usize, sums: (&mut [u32], usize), goes_on: bool);
                $module::weigh(scores: &mut [u32], keys: usize, factor: f32, weightings: &mut [Weighting]);
                $module::pull_back_tile(scores: &[u32], of_weights: &[u32], of_rows: OfRows<'_>, place: OfTile<'_>);
                $module::turn_back(layout: Layout<Self>, lines: &[u32], rows: &mut [f32]);
            }
        }
    };
}

registers!(f32, fp32, 1);
registers!(Bf16, bf16, 2);

/// What differs by the kind of words only in the features, how many values they hold, and `dot`.
macro_rules! functions {
    ($features:literal, $per_word:literal, $dot:path) => {
        use super::*;
        pub(super) use super::{lay_side_by_side, turn, turn_back};

        products!($features, $per_word);

        /// The products of a tile's and a lane's words are added to the sums if it `goes_on`, or become them. In the tile word w of row r lies
        /// at w·`WORD` + r·`ROW`, in the lane its line at w·`COLUMNS`; rows of sums lie apart.
        ///
        /// # Safety
        /// The tile has `depth` words for each row, the lane a line for each of these, which begins at a cache line; the sums' places can be
        /// read and written.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn add_products<const WORD: usize, const ROW: usize>(
            mut tile: *const u32,
            mut lane: *const u32,
            depth: usize,
            (sums, apart): (*mut u32, usize),
            goes_on: bool,
        ) {
            let mut accumulators = [[_mm512_setzero_ps(); SIXTEENS]; ROWS];
            let place = |row: usize, half: usize| sums.wrapping_add(row * apart + half * 16).cast::<f32>();
            // SAFETY: the caller's promise.
            unsafe {
                if goes_on {
                    for (row, accumulators) in accumulators.iter_mut().enumerate() {
                        for (half, accumulator) in accumulators.iter_mut().enumerate() {
                            *accumulator = _mm512_loadu_ps(place(row, half));
                        }
                    }
                }
                for _ in 0..depth {
                    let weights = [_mm512_load_si512(lane.cast()), _mm512_load_si512(lane.add(16).cast())];
                    for row in 0..ROWS {
                        let activation = _mm512_set1_epi32((*tile.add(row * ROW)).cast_signed());
                        for half in 0..SIXTEENS {
                            accumulators[row][half] = $dot(accumulators[row][half], activation, weights[half]);
                        }
                    }
                    (tile, lane) = (tile.add(WORD), lane.add(COLUMNS));
                }
                for (row, accumulators) in accumulators.into_iter().enumerate() {
                    for (half, accumulator) in accumulators.into_iter().enumerate() {
                        _mm512_storeu_ps(place(row, half), accumulator);
                    }
                }
            }
        }
    };
}

mod fp32 {
    functions!("avx512f,avx512bw,avx512dq,avx512vl", 1, dot_f32);
    pub(super) use super::{
        pull_back_tile_singly as pull_back_tile, split_by_lanes_singly as split_by_lanes, weigh_singly as weigh,
    };

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn split_by_tiles(layout: Layout<Avx512<f32>>, rows: &[u32], place: &mut [u32], apart: usize) {
        assert!(rows.len() >= layout.tile());
        for (row, values) in rows.chunks_exact(layout.stride).enumerate().take(ROWS) {
            for (group, values) in values.as_chunks::<ROWS>().0.iter().enumerate().take(layout.tiles) {
                place[group * apart + row * ROWS..][..ROWS].copy_from_slice(values);
            }
        }
    }
}

mod bf16 {
    functions!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", 2, dot_bf16);

    /// Words of two rows' values, sixteen values of each a register.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    fn pairs(first: __m512i, second: __m512i) -> [__m512i; 2] {
        static LOW: [u16; 32] = in_turns(0, 32);
        static HIGH: [u16; 32] = in_turns(16, 32);
        // SAFETY: a table is a register.
        let [low, high] = [&LOW, &HIGH].map(|places| unsafe { _mm512_loadu_si512(places.as_ptr().cast()) });
        [_mm512_permutex2var_epi16(first, low, second), _mm512_permutex2var_epi16(first, high, second)]
    }

    /// The places from `from` on, and those so far `apart` from them, in turns.
    const fn in_turns(from: u16, apart: u16) -> [u16; 32] {
        let mut places = [0; 32];
        let mut at = 0;
        while at < 32 {
            places[at as usize] = from + at / 2 + at % 2 * apart;
            at += 1;
        }
        places
    }

    /// Calls `put` with the word of two rows, the register among the row's, and sixteen of the words that the two make.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    fn split(layout: Layout<Avx512<Bf16>>, rows: &[u32], count: usize, mut put: impl FnMut(usize, usize, __m512i)) {
        assert!(rows.len() >= count * layout.stride);
        for (word, rows) in rows.chunks_exact(2 * layout.stride).enumerate().take(count / 2) {
            let (first, second) = rows.split_at(layout.stride);
            for (at, (first, second)) in first.as_chunks::<16>().0.iter().zip(second.as_chunks::<16>().0).enumerate() {
                // SAFETY: sixteen words are a register.
                let [first, second] = [first, second].map(|words| unsafe { _mm512_loadu_si512(words.as_ptr().cast()) });
                let [low, high] = pairs(first, second);
                put(word, 2 * at, low);
                put(word, 2 * at + 1, high);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn split_by_tiles(layout: Layout<Avx512<Bf16>>, rows: &[u32], place: &mut [u32], apart: usize) {
        split(layout, rows, ROWS, |word, sixteen, words| {
            let halves = [_mm512_castsi512_si256(words), _mm512_extracti64x4_epi64::<1>(words)];
            for (half, words) in halves.into_iter().enumerate() {
                let group = 2 * sixteen + half;
                if group < layout.tiles {
                    let place = &mut place[group * apart + word * ROWS..][..ROWS];
                    // SAFETY: eight words are half of a register.
                    unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), words) };
                }
            }
        });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn split_by_lanes(layout: Layout<Avx512<Bf16>>, rows: &[u32], place: &mut [u32]) {
        split(layout, rows, COLUMNS, |word, sixteen, words| {
            let (group, half) = (sixteen / SIXTEENS, sixteen % SIXTEENS);
            let place = &mut place[group * layout.group() + word * COLUMNS + half * 16..][..16];
            // SAFETY: sixteen words are a register.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), words) };
        });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn weigh(scores: &mut [u32], keys: usize, factor: f32, weightings: &mut [Weighting]) {
        let lines = scores.as_chunks_mut::<COLUMNS>().0;
        let greatest = greatest_of(&lines[..keys]);
        let mut sums = [v::zero(); SIXTEENS];
        for pair in 0..keys.div_ceil(2) {
            for half in 0..SIXTEENS {
                let of = |line: &[u32; COLUMNS]| exponentials(load(line, half), greatest[half], v::splat(factor));
                let first = of(&lines[2 * pair]);
                let second = if 2 * pair + 1 < keys { of(&lines[2 * pair + 1]) } else { v::zero() };
                sums[half] = v::add(sums[half], v::add(first, second));
                // Scores that were read are overwritten.
                store_bits(&mut lines[pair], half, rounded_pairs(first, second));
            }
        }
        put_weightings(greatest, sums, weightings);
    }

    /// Sixteen words of two rows' values, rounded.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    #[inline]
    fn rounded_pairs(first: Floats, second: Floats) -> __m512i {
        static IN_TURNS: [u16; 32] = in_turns(0, 16);
        // SAFETY: a table is a register.
        let places = unsafe { _mm512_loadu_si512(IN_TURNS.as_ptr().cast()) };
        _mm512_permutexvar_epi16(places, v::convert_two_to_bf16([first, second]))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn pull_back_tile(scores: &[u32], of_weights: &[u32], of_rows: OfRows<'_>, place: OfTile<'_>) {
        let (scores, of_weights) = (&scores.as_chunks().0[..ROWS], &of_weights.as_chunks().0[..ROWS]);
        let OfTile { weights: weights_at, of_scores: of_scores_at, of_scores_by_rows } = place;
        let (weights_at, of_scores_at) = (
            &mut weights_at.as_chunks_mut::<COLUMNS>().0[..ROWS / 2],
            &mut of_scores_at.as_chunks_mut::<COLUMNS>().0[..ROWS / 2],
        );
        let by_rows = &mut of_scores_by_rows.as_chunks_mut::<COLUMNS>().0[..ROWS / 2];
        for pair in 0..ROWS / 2 {
            let mut halves = [[v::zero(); 2]; SIXTEENS];
            for (half, of_half) in halves.iter_mut().enumerate() {
                let of_row =
                    |row: usize| pull_back(load(&scores[row], half), load(&of_weights[row], half), &of_rows, row);
                let ((first, of_first), (second, of_second)) = (of_row(2 * pair), of_row(2 * pair + 1));
                // What is not there would be half of a word, and 0 times what is not a number is not 0.
                let there = v::first(of_rows.keys.saturating_sub(16 * half));
                let of_first = v::keep(there, of_first);
                let (second, of_second) = if 2 * pair + 1 < of_rows.queries {
                    (second, v::keep(there, of_second))
                } else {
                    (v::zero(), v::zero())
                };
                store_bits(&mut weights_at[pair], half, rounded_pairs(first, second));
                store_bits(&mut of_scores_at[pair], half, rounded_pairs(of_first, of_second));
                *of_half = [of_first, of_second];
            }
            // A row is sixteen words, half of a line.
            let [low, high] = halves;
            for row in 0..2 {
                store_bits(&mut by_rows[pair], row, v::convert_two_to_bf16([low[row], high[row]]));
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn lay_side_by_side<E>(layout: Layout<Avx512<E>>, rows: &[u32], place: &mut [u32])
where
    Avx512<E>: Registers,
{
    assert!(rows.len() >= layout.tile() && place.len() >= layout.tile());
    let place = place.as_mut_ptr();
    for first in (0..layout.words).step_by(8) {
        // SAFETY: each row has a multiple of 8 words, and there is room for as many, as asserted.
        unsafe {
            let row = |row: usize| _mm256_loadu_si256(rows.as_ptr().add(row * layout.stride + first).cast());
            let upper = transpose_four([row(0), row(1), row(2), row(3)]);
            let lower = transpose_four([row(4), row(5), row(6), row(7)]);
            for (j, (upper, lower)) in upper.into_iter().zip(lower).enumerate() {
                let place = |word: usize| place.add((first + word) * ROWS).cast::<__m256i>();
                _mm256_storeu_si256(place(j), _mm256_permute2x128_si256::<0x20>(upper, lower));
                _mm256_storeu_si256(place(4 + j), _mm256_permute2x128_si256::<0x31>(upper, lower));
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn store_bits(line: &mut [u32; COLUMNS], half: usize, words: __m512i) {
    // SAFETY: half of a line is a register.
    unsafe { _mm512_storeu_si512(line.as_chunks_mut::<16>().0[half].as_mut_ptr().cast(), words) };
}
