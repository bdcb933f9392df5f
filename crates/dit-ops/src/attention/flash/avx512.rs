use std::{arch::x86_64::*, marker::PhantomData, mem::MaybeUninit};

use super::{
    Layout, OfRows, OfTile, Registers, Weighting, by_functions,
    lines::{lines, products},
    singles::singles,
};
use crate::{attention::softmax::exp2, cpu::Cpu, element::Element, transpose::transpose_four};

mod pairs;

pub(crate) use pairs::Avx512Pairs;

singles! {
    /// AVX-512's registers.
    Avx512, avx512, QUERIES
}

lines!(avx512, transpose_avx512, "avx512f,avx512bw,avx512dq,avx512vl");

/// Rows of a tile, whose sums are sixteen registers: for as many products ten words or registers are read.
const ROWS: usize = 8;
const COLUMNS: usize = 32;
/// Registers of a line.
const SIXTEENS: usize = COLUMNS / 16;
/// What they and 32 keys give each other is 8 kB for each factor in bf16, and 16 in fp32.
const QUERIES: usize = 128;

/// `multiply` and `multiply_rows`, which differ by the kind of words only in the features, how many values they hold, and `dot`.
macro_rules! products_by {
    ($features:literal, $per_word:literal, $dot:path) => {
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
use products_by;

/// The methods of [`Registers`] where words are single values.
mod functions {
    use super::*;
    pub(super) use super::{
        COLUMNS, ROWS, lay_side_by_side, pull_back_tile_singly as pull_back_tile,
        split_by_lanes_singly as split_by_lanes, turn, turn_back, weigh_singly as weigh,
    };
    use crate::avx512::tile::dot_f32;

    products_by!("avx512f,avx512bw,avx512dq,avx512vl", 1, dot_f32);

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn split_by_tiles<R: Registers>(layout: Layout<R>, rows: &[u32], place: &mut [u32], apart: usize) {
        assert!(rows.len() >= layout.tile());
        for (row, values) in rows.chunks_exact(layout.stride).enumerate().take(ROWS) {
            for (group, values) in values.as_chunks::<ROWS>().0.iter().enumerate().take(layout.tiles) {
                place[group * apart + row * ROWS..][..ROWS].copy_from_slice(values);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn lay_side_by_side<R: Registers>(layout: Layout<R>, rows: &[u32], place: &mut [u32]) {
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
