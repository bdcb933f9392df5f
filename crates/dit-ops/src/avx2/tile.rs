//! Sums of products of rows with one panel, both read where they lie. A register of AVX-512's panels is two here, and sixteen registers
//! hold the sums of one of the panel's lanes of sixteen columns and few rows. So the lanes are gone through one after the other, and a
//! stretch of the inner dimension at a time, whose part of a lane stays in the first-level cache while all rows pass.

use std::arch::x86_64::*;

use crate::{functions::functions, gemm::Line};

/// Words of the inner dimension at a time: their part of a lane is half of a first-level cache.
const STRETCH: usize = 256;
/// Words by which a lane's lines are asked for before they are multiplied: the CPU does not foresee lines that lie apart.
const AHEAD: usize = 8;

/// One module for each kind of word: what is multiplied is made of eight words of weights, and of a word of activations eight times, and
/// `dot` adds the products to the sums.
macro_rules! tile {
    ($module:ident, $rows:literal, $sum:ty, $zero:expr, $weights:ident, $activations:ident, $dot:ident, $from:path, $bits:path) => {
        pub(crate) mod $module {
            use super::*;

            /// Most rows of a tile: their sums, the weights and one activation fill the registers.
            const ROWS: usize = $rows;

            /// Multiplies `rows` rows, `stride` words apart, with a panel of 16·`LANES` columns; row r's sums (bits of fp32, or int32) go to
            /// `sums + r·sums_stride`.
            ///
            /// # Safety
            /// The CPU has the features; each row has `depth` words, the panel `depth` times `LANES` lines; 16·`LANES` words from
            /// each row's place in `sums` are writable, and nobody else's.
            #[target_feature(enable = "avx2,fma")]
            pub(crate) unsafe fn multiply<const LANES: usize>(
                left: *const u32,
                stride: usize,
                rows: usize,
                panel: *const Line,
                depth: usize,
                sums: *mut u32,
                sums_stride: usize,
            ) {
                let mut done = 0;
                while done == 0 || done < depth {
                    let words = STRETCH.min(depth - done);
                    for lane in 0..LANES {
                        let mut row = 0;
                        while row < rows {
                            // SAFETY: the rows from here on, their words and the lane's lines from `done` on, and their sums are
                            // there, as the caller promises.
                            unsafe {
                                let left = left.add(row * stride + done);
                                let lines = panel.add(done * LANES + lane);
                                let place = sums.add(row * sums_stride + lane * 16);
                                let (goes_on, rest) = (done > 0, rows - row);
                                row += match rest {
                                    _ if rest >= ROWS => {
                                        tile::<ROWS, LANES>(left, stride, lines, words, place, sums_stride, goes_on)
                                    }
                                    4.. => tile::<4, LANES>(left, stride, lines, words, place, sums_stride, goes_on),
                                    2.. => tile::<2, LANES>(left, stride, lines, words, place, sums_stride, goes_on),
                                    _ => tile::<1, LANES>(left, stride, lines, words, place, sums_stride, goes_on),
                                };
                            }
                        }
                    }
                    done += STRETCH;
                }
            }

            /// `R` rows by a lane whose lines are `LANES` apart, to be added to the sums if it `goes_on`. Gives `R`.
            ///
            /// # Safety
            /// As [`multiply`].
            #[target_feature(enable = "avx2,fma")]
            #[inline]
            unsafe fn tile<const R: usize, const LANES: usize>(
                left: *const u32,
                stride: usize,
                lines: *const Line,
                words: usize,
                sums: *mut u32,
                sums_stride: usize,
                goes_on: bool,
            ) -> usize {
                let starts: [*const u32; R] = std::array::from_fn(|row| left.wrapping_add(row * stride));
                let mut accumulators: [[$sum; 2]; R] = [[$zero; 2]; R];
                let place = |row: usize, half: usize| sums.wrapping_add(row * sums_stride + half * 8).cast::<__m256i>();
                // SAFETY: word `k` of each row, line `k·LANES` and the places are there, as the caller promises; asking for a line
                // reads nothing.
                unsafe {
                    if goes_on {
                        for (row, accumulators) in accumulators.iter_mut().enumerate() {
                            *accumulators = [0, 1].map(|half| $from(_mm256_loadu_si256(place(row, half))));
                        }
                    }
                    let mut line = lines.cast::<__m256i>();
                    for k in 0..words {
                        let weights = [$weights(_mm256_load_si256(line)), $weights(_mm256_load_si256(line.add(1)))];
                        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(2 * LANES * AHEAD).cast());
                        line = line.wrapping_add(2 * LANES);
                        for row in 0..R {
                            let activation = $activations(_mm256_set1_epi32((*starts[row].add(k)).cast_signed()));
                            for half in 0..2 {
                                accumulators[row][half] = $dot(accumulators[row][half], activation, weights[half]);
                            }
                        }
                    }
                    for (row, accumulators) in accumulators.into_iter().enumerate() {
                        for (half, accumulator) in accumulators.into_iter().enumerate() {
                            _mm256_storeu_si256(place(row, half), $bits(accumulator));
                        }
                    }
                }
                R
            }
        }
    };
}

tile!(fp32, 6, __m256, _mm256_setzero_ps(), floats, floats, dot_f32, floats, _mm256_castps_si256);
tile!(bf16, 4, __m256, _mm256_setzero_ps(), pairs, pairs, dot_bf16, floats, _mm256_castps_si256);
tile!(int8, 4, __m256i, _mm256_setzero_si256(), signed, unsigned, dot_int8, same, same);

functions! {
    "avx2,fma";

    fn same(words: __m256i) -> __m256i { words }
    fn floats(words: __m256i) -> __m256 { _mm256_castsi256_ps(words) }
    fn dot_f32(sum: __m256, activation: __m256, weight: __m256) -> __m256 { _mm256_fmadd_ps(activation, weight, sum) }

    /// The two bf16 of each word, as fp32.
    fn pairs(words: __m256i) -> [__m256; 2] {
        let high = _mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)), _mm256_castsi256_ps(high)]
    }
    fn dot_bf16(sum: __m256, activation: [__m256; 2], weight: [__m256; 2]) -> __m256 {
        dot_f32(dot_f32(sum, activation[0], weight[0]), activation[1], weight[1])
    }

    /// The four int8 of each word, two as int16 in each register. (Products of bytes are fewer
    /// instructions, as in [`block`](super::block), but few rows wait for weights anyway.)
    fn signed(words: __m256i) -> [__m256i; 2] {
        [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(words)), _mm256_srai_epi16::<8>(words)]
    }
    /// The same of unsigned ones.
    fn unsigned(words: __m256i) -> [__m256i; 2] {
        [_mm256_and_si256(words, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(words)]
    }
    fn dot_int8(sum: __m256i, activation: [__m256i; 2], weight: [__m256i; 2]) -> __m256i {
        let products = [0, 1].map(|part: usize| _mm256_madd_epi16(activation[part], weight[part]));
        _mm256_add_epi32(sum, _mm256_add_epi32(products[0], products[1]))
    }
}
