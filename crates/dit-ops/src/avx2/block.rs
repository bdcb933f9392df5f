//! Many rows by panels: how [`blocks`](crate::blocks) copies factors and multiplies them.

use std::arch::{asm, x86_64::*};

use super::{
    tile::{dot_f32, pairs},
    vector,
};
use crate::{
    blocks::{ROWS, blocks},
    functions::functions,
    gemm::Line,
    transpose::transpose_four,
};

// Of a tile: two registers of sums for each row, two of weights and one activation are fifteen of sixteen.

/// Words that rows are copied by at once.
const AT_ONCE: usize = crate::blocks::MOST_AT_ONCE;
/// Words by which a lane's lines are asked for before they are copied.
const AHEAD: usize = 16;

/// One module for each kind of word, of which `planes` are made when it is copied; `dot` adds products to sums.
macro_rules! block {
    ($module:ident, $planes:literal, $of_rows:ident, $of_weights:ident, $dot:ident) => {
        pub(crate) mod $module {
            use super::*;

            const PLANES: usize = $planes;
            const MULTIPLE: usize = 1;
            blocks!("avx2,fma");

            /// The words of up to [`ROWS`] rows, zeros for those that are not there, side by side.
            ///
            /// # Safety
            /// As [`multiply`]; `place`, an even number of words from a cache line, has room for the words up to the next multiple of
            /// [`AT_ONCE`], all of which are overwritten.
            #[target_feature(enable = "avx2,fma")]
            unsafe fn copy_rows(left: *const u32, stride: usize, rows: usize, words: usize, place: *mut u32) {
                for first in (0..words).step_by(AT_ONCE) {
                    // SAFETY: the words of rows that are there, masked where there are fewer; the caller's promise.
                    let row = |row: usize| unsafe {
                        let start = left.wrapping_add(row * stride + first);
                        // The next tile's row in its place.
                        _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(ROWS * stride).cast());
                        $of_rows(match words - first {
                            _ if row >= rows => _mm256_setzero_si256(),
                            AT_ONCE.. => _mm256_loadu_si256(start.cast()),
                            rest => _mm256_maskload_epi32(start.cast(), vector::first(rest).bits()[0]),
                        })
                    };
                    let (a, b, c, d, e, f) = (row(0), row(1), row(2), row(3), row(4), row(5));
                    for plane in 0..$planes {
                        let place = place.wrapping_add((first * $planes + plane) * ROWS);
                        // SAFETY: the caller's promise.
                        unsafe {
                            let rows = [a[plane], b[plane], c[plane], d[plane], e[plane], f[plane]];
                            store_side_by_side(rows, place, $planes * ROWS);
                        }
                    }
                }
            }

            /// The lines of a lane, `LANES` apart, one after the other.
            ///
            /// # Safety
            /// As [`multiply`]; `place`, a cache line's start, has room for `words` lines times the planes.
            #[target_feature(enable = "avx2,fma")]
            unsafe fn copy_lane<const LANES: usize>(lines: *const Line, words: usize, place: *mut u32) {
                for word in 0..words {
                    let line = lines.wrapping_add(word * LANES).cast::<__m256i>();
                    let place = place.wrapping_add(word * $planes * 16).cast::<__m256i>();
                    // SAFETY: the caller's promise; asking for a line reads nothing.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(2 * LANES * AHEAD).cast());
                        for half in 0..2 {
                            for (plane, weights) in
                                $of_weights(_mm256_load_si256(line.add(half))).into_iter().enumerate()
                            {
                                _mm256_store_si256(place.add(2 * plane + half), weights);
                            }
                        }
                    }
                }
            }

            /// The products of a tile's and a lane's words, of `depth` words once widened, are added to the sums if it `goes_on`, or become
            /// them. In the tile word w of row r lies at w·`WORD` + r·`ROW`, in the lane its line at 16·w; rows of sums lie apart. (Distances
            /// that the compiler does not know cost it a register.)
            ///
            /// # Safety
            /// The CPU has the features; `tile` has a word for each of [`ROWS`] rows and `depth` words, `lane` a line for each of these,
            /// which begins at a multiple of 32 bytes; there are places for [`ROWS`] rows of `sums`, and nobody else's.
            #[target_feature(enable = "avx2,fma")]
            #[inline]
            pub(crate) unsafe fn add_products<const WORD: usize, const ROW: usize>(
                tile: *const u32,
                lane: *const u32,
                depth: usize,
                sums: (*mut u32, usize),
                goes_on: bool,
            ) {
                /// Words of one turn of the loop.
                const TURN: usize = 4;
                let whole = depth / TURN * TURN;
                // SAFETY: the caller's promise.
                unsafe {
                    if whole > 0 || depth == 0 {
                        add_in_turns::<TURN, WORD, ROW>(tile, lane, whole, sums, goes_on);
                    }
                    if whole < depth {
                        let (tile, lane) = (tile.add(whole * WORD), lane.add(whole * 16));
                        add_in_turns::<1, WORD, ROW>(tile, lane, depth - whole, sums, goes_on || whole > 0);
                    }
                }
            }

            /// The same of a multiple of `TURN` words, so many to a turn of the loop. (Two loops in one function take more registers than
            /// there are.)
            ///
            /// # Safety
            /// As [`add_products`].
            #[target_feature(enable = "avx2,fma")]
            #[inline]
            unsafe fn add_in_turns<const TURN: usize, const WORD: usize, const ROW: usize>(
                mut tile: *const u32,
                mut lane: *const u32,
                depth: usize,
                (sums, apart): (*mut u32, usize),
                goes_on: bool,
            ) {
                let mut accumulators = [[_mm256_setzero_si256(); 2]; ROWS];
                let place = |row: usize, half: usize| sums.wrapping_add(row * apart + half * 8).cast::<__m256i>();
                const { assert!(TURN == 1 || TURN == 4) };
                // SAFETY: the caller's promise.
                unsafe {
                    if goes_on {
                        for (row, accumulators) in accumulators.iter_mut().enumerate() {
                            *accumulators = [0, 1].map(|half| _mm256_loadu_si256(place(row, half)));
                        }
                    }
                    for _ in 0..depth / TURN {
                        // Written out: the compiler leaves a loop over int8's instructions rolled up, which takes 3 % longer.
                        step!($dot, ROW, accumulators, tile, lane);
                        if TURN == 4 {
                            step!($dot, ROW, accumulators, tile.add(WORD), lane.add(16));
                            step!($dot, ROW, accumulators, tile.add(2 * WORD), lane.add(2 * 16));
                            step!($dot, ROW, accumulators, tile.add(3 * WORD), lane.add(3 * 16));
                        }
                        (tile, lane) = (tile.add(TURN * WORD), lane.add(TURN * 16));
                    }
                    for (row, accumulators) in accumulators.into_iter().enumerate() {
                        for (half, accumulator) in accumulators.into_iter().enumerate() {
                            _mm256_storeu_si256(place(row, half), accumulator);
                        }
                    }
                }
            }
        }
    };
}

/// One word of the inner dimension.
macro_rules! step {
    ($dot:ident, $row:ident, $accumulators:ident, $activations:expr, $line:expr) => {
        let (activations, line) = ($activations, $line.cast::<__m256i>());
        let weights = [_mm256_load_si256(line), _mm256_load_si256(line.add(1))];
        for row in 0..ROWS {
            let activation = _mm256_set1_epi32((*activations.add(row * $row)).cast_signed());
            for half in 0..2 {
                $accumulators[row][half] = $dot($accumulators[row][half], activation, weights[half]);
            }
        }
    };
}

block!(fp32, 1, same, same, of_floats);
block!(bf16, 2, widened, widened, of_floats);
block!(int8, 1, same, same, of_bytes);

functions! {
    "avx2,fma";

    fn same(words: __m256i) -> [__m256i; 1] { [words] }
    fn widened(words: __m256i) -> [__m256i; 2] { pairs(words).map(|plane| _mm256_castps_si256(plane)) }
    fn of_floats(sums: __m256i, activations: __m256i, weights: __m256i) -> __m256i {
        let (activations, weights) = (_mm256_castsi256_ps(activations), _mm256_castsi256_ps(weights));
        _mm256_castps_si256(dot_f32(_mm256_castsi256_ps(sums), activations, weights))
    }
    /// Four products of bytes to each sum: twos are added in 16 bits, which hold them as the [weights were
    /// rounded](crate::gemm::Words::twos_saturate), then the two in 32.
    fn of_bytes(sums: __m256i, activations: __m256i, weights: __m256i) -> __m256i {
        let mut sums = sums;
        // In one piece: the compiler would else keep the ones in a register, or add products of several words to each other first, either
        // of which takes more registers than there are.
        // SAFETY: the CPU has AVX2; sixteen numbers are read; nothing but the registers changes.
        unsafe {
            asm!(
                "vpmaddubsw {products}, {activations}, {weights}",
                "vpmaddwd {products}, {products}, ymmword ptr [{ones}]",
                "vpaddd {sums}, {sums}, {products}",
                sums = inout(ymm_reg) sums,
                activations = in(ymm_reg) activations,
                weights = in(ymm_reg) weights,
                products = out(ymm_reg) _,
                ones = in(reg) &ONES.0,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        sums
    }
}

/// Sixteen numbers that lie in one cache line.
#[repr(align(32))]
struct Register([i16; 16]);

static ONES: Register = Register([1; 16]);

/// Word w of six rows goes to `place + w·apart`, one row's after the other's.
///
/// # Safety
/// The CPU has AVX2; six words from each place, an even number of words from a cache line, are writable.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) unsafe fn store_side_by_side([a, b, c, d, e, f]: [__m256i; ROWS], place: *mut u32, apart: usize) {
    // Words 0, 1, 4 and 5, then 2, 3, 6 and 7 of the last two.
    let (ef_low, ef_high) = (_mm256_unpacklo_epi32(e, f), _mm256_unpackhi_epi32(e, f));
    let halves = |words: __m256i| [_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words)];
    let (ef_low, ef_high) = (halves(ef_low), halves(ef_high));
    for (j, four) in transpose_four([a, b, c, d]).into_iter().enumerate() {
        for (half, four) in halves(four).into_iter().enumerate() {
            let place = place.wrapping_add((4 * half + j) * apart);
            let two = _mm_castsi128_pd(if j < 2 { ef_low[half] } else { ef_high[half] });
            // SAFETY: the caller's promise.
            unsafe {
                _mm_storeu_si128(place.cast(), four);
                let place = place.add(4).cast::<f64>();
                if j % 2 == 0 { _mm_storel_pd(place, two) } else { _mm_storeh_pd(place, two) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tile, *};
    use crate::cpu::Cpu;

    const LANES: usize = 3;

    /// The same words for both: numbers of all sizes, their signs and, where words hold several, all of them.
    fn words(count: usize, seed: u32, of_word: impl Fn(u32) -> u32) -> Vec<u32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            of_word(state ^ state >> 15)
        };
        (0..count).map(|_| next()).collect()
    }

    macro_rules! same_bits {
        ($name:ident, $module:ident, $of_word:expr) => {
            /// Which of the two multiplies a row depends on the number of threads, and must not show.
            #[test]
            fn $name() {
                if !Cpu::detect().avx2 {
                    eprintln!("SKIPPED: no AVX2");
                    return;
                }
                // A large product first: what it leaves behind in the copies must not show.
                for rows in [192, 1, 5, 6, 11, 12, 13, 17, 191] {
                    for depth in [300, 0, 1, 7, 8, 9, 127, 128, 129, 255, 256, 257, 515] {
                        for (count, stride) in [(1, depth), (4, depth + 5)] {
                            let left = words(rows * stride, 7, $of_word);
                            let right = words(16 * LANES * count * depth, 11, $of_word);
                            let lines: Vec<Line> = right.as_chunks::<16>().0.iter().map(|&words| Line(words)).collect();
                            let (apart, width) = (rows.next_multiple_of(ROWS) * 16 * LANES, 16 * LANES);
                            let mut sums = vec![u32::MAX; count * apart];
                            let mut expected = vec![0; rows * width];
                            // SAFETY: the CPU has the instructions; rows, panels and sums are as large as is said.
                            unsafe {
                                let panels = (lines.as_ptr(), count);
                                let place = (apart, width);
                                $module::multiply::<LANES>(
                                    left.as_ptr(),
                                    stride,
                                    rows,
                                    panels,
                                    depth,
                                    sums.as_mut_ptr(),
                                    place,
                                );
                                for panel in 0..count {
                                    let lines = lines.as_ptr().add(panel * depth * LANES);
                                    let place = expected.as_mut_ptr();
                                    tile::$module::multiply::<LANES>(
                                        left.as_ptr(),
                                        stride,
                                        rows,
                                        lines,
                                        depth,
                                        place,
                                        width,
                                    );
                                    let found = &sums[panel * apart..][..rows * width];
                                    assert!(found == expected, "{rows} rows, {depth} words, panel {panel} of {count}");
                                }
                            }
                        }
                    }
                }
            }
        };
    }

    // Exponents near that of 1, so that sums round, and no sum is NaN.
    same_bits!(fp32, fp32, |word| word & 0x80ff_ffff | 0x3f00_0000);
    same_bits!(bf16, bf16, |word| word & 0x80ff_80ff | 0x3f00_3f00);
    // Bytes that are −64 to 63 as weights: 16 bits hold sums of two products with any activations.
    same_bits!(int8, int8, |word| word & 0xbfbf_bfbf | (word & 0x8080_8080) >> 1);
}
