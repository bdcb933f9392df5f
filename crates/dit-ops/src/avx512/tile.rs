//! The inner loops: sums of products of a few rows with one panel, in AVX-512 registers.

use std::arch::x86_64::*;

use crate::{gemm::Line, memory::prefetch};

/// Words by which a panel's lines are asked for before they are multiplied: Intel's CPUs do not bring all of them from the second-level cache by
/// themselves.
pub(crate) const AHEAD: usize = 16;

/// One module for each kind of word; they differ in a single instruction.
macro_rules! tile {
    ($module:ident, $features:literal, $dot:path, $zero:expr, $from:path, $bits:path) => {
        pub(crate) mod $module {
            use super::*;

            /// Multiplies the rows behind `starts` with a panel of 16·`LANES` columns; row r's sums (bits of fp32, or int32) are added to what is at
            /// `sums + r·stride` if it `goes_on`, or go there.
            ///
            /// # Safety
            /// The CPU has the features; `depth` words follow each start and are readable; `panel` is followed by `depth` times
            /// `LANES` lines; 16·`LANES` words from each row's place in `sums` are readable if it goes on, and writable, and nobody else's.
            #[target_feature(enable = $features)]
            #[inline]
            pub(crate) unsafe fn tile<const ROWS: usize, const LANES: usize>(
                starts: [*const u32; ROWS],
                panel: *const Line,
                depth: usize,
                sums: *mut u32,
                stride: usize,
                goes_on: bool,
            ) {
                let mut accumulators = [[$zero; LANES]; ROWS];
                if goes_on {
                    for (row, accumulators) in accumulators.iter_mut().enumerate() {
                        for (lane, accumulator) in accumulators.iter_mut().enumerate() {
                            // SAFETY: the place is readable, as the caller promises.
                            let sum = unsafe { _mm512_loadu_si512(sums.add(row * stride + lane * 16).cast()) };
                            *accumulator = $from(sum);
                        }
                    }
                }
                let mut line = panel;
                for k in 0..depth {
                    // SAFETY: word `k` of each row and line `k·LANES` with those after it are readable, as the caller promises.
                    unsafe {
                        let mut weights = [_mm512_setzero_si512(); LANES];
                        for (lane, weight) in weights.iter_mut().enumerate() {
                            *weight = _mm512_load_si512(line.add(lane).cast());
                            prefetch(line.wrapping_add(AHEAD * LANES + lane));
                        }
                        line = line.add(LANES);
                        for row in 0..ROWS {
                            let activation = _mm512_set1_epi32((*starts[row].add(k)).cast_signed());
                            for lane in 0..LANES {
                                accumulators[row][lane] = $dot(accumulators[row][lane], activation, weights[lane]);
                            }
                        }
                    }
                }
                for (row, accumulators) in accumulators.into_iter().enumerate() {
                    for (lane, accumulator) in accumulators.into_iter().enumerate() {
                        // SAFETY: the place is writable, as the caller promises.
                        unsafe { _mm512_storeu_si512(sums.add(row * stride + lane * 16).cast(), $bits(accumulator)) };
                    }
                }
            }
        }
    };
}

tile!(
    fp32,
    "avx512f,avx512bw,avx512dq,avx512vl",
    dot_f32,
    _mm512_setzero_ps(),
    _mm512_castsi512_ps,
    _mm512_castps_si512
);
tile!(
    bf16,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
    dot_bf16,
    _mm512_setzero_ps(),
    _mm512_castsi512_ps,
    _mm512_castps_si512
);
tile!(
    bf16_widened,
    "avx512f,avx512bw,avx512dq,avx512vl",
    dot_widened,
    _mm512_setzero_ps(),
    _mm512_castsi512_ps,
    _mm512_castps_si512
);
tile!(int8, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", _mm512_dpbusd_epi32, _mm512_setzero_si512(), same, same);

/// sum + activation·weight, sixteen numbers.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn dot_f32(sum: __m512, activation: __m512i, weight: __m512i) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(activation), _mm512_castsi512_ps(weight), sum)
}

/// The same of sixteen pairs of bf16, each pair's products added.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(crate) fn dot_bf16(sum: __m512, activation: __m512i, weight: __m512i) -> __m512 {
    // SAFETY: both types are 512 bits of anything.
    let pairs = |words: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(words) };
    _mm512_dpbf16_ps(sum, pairs(activation), pairs(weight))
}

/// The two bf16 of each word, as bits of fp32.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn pairs(words: __m512i) -> [__m512i; 2] {
    let high = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
    [_mm512_slli_epi32::<16>(words), high]
}

/// As [`dot_bf16`] by products of fp32, the pair's first one added first.
#[target_feature(enable = "avx512f")]
#[inline]
fn dot_widened(sum: __m512, activation: __m512i, weight: __m512i) -> __m512 {
    let ([low, high], [weight_low, weight_high]) = (pairs(activation), pairs(weight));
    dot_f32(dot_f32(sum, low, weight_low), high, weight_high)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn same(bits: __m512i) -> __m512i {
    bits
}
