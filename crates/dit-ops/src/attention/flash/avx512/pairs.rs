//! Words that are pairs of bf16, which AVX-512 BF16 multiplies.

use super::{super::Registers, *};
use crate::{avx512::tile::dot_bf16, element::Bf16, gemm::Words};

/// AVX-512's registers, products by AVX-512 BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Pairs(());

impl Avx512Pairs {
    /// Where the CPU has them, and they are fast.
    pub(crate) fn detect() -> Option<Self> {
        Words::Bf16.in_avx512(Cpu::detect()).then_some(Self(()))
    }
}

impl Registers for Avx512Pairs {
    type Element = Bf16;
    const PER_WORD: usize = 2;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const QUERIES: usize = QUERIES;

    by_functions!();
}

/// The methods of [`Registers`].
mod functions {
    pub(super) use super::super::{lay_side_by_side, turn, turn_back};
    use super::*;

    products_by!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", 2, dot_bf16);

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
    fn split(layout: Layout<Avx512Pairs>, rows: &[u32], count: usize, mut put: impl FnMut(usize, usize, __m512i)) {
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
    pub(super) fn split_by_tiles(layout: Layout<Avx512Pairs>, rows: &[u32], place: &mut [u32], apart: usize) {
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
    pub(super) fn split_by_lanes(layout: Layout<Avx512Pairs>, rows: &[u32], place: &mut [u32]) {
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
