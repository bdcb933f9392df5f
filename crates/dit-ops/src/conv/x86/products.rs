//! Sums of products of a factor's rows with one panel of weights.

use std::arch::x86_64::*;

use super::super::packed::WIDTH;
use crate::{
    avx512::tile::{dot_bf16, dot_f32},
    gemm::Line,
};

/// One module for each kind of word in AVX-512.
macro_rules! products {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            /// What rows come in multiples of.
            pub(in super::super) const ROWS: usize = 4;

            /// Sums of `rows` rows, a multiple of [`ROWS`], by one panel.
            ///
            /// # Safety
            /// The CPU has the features. `left` has `rows` rows of `depth` words, `stride` apart; `sums` has as many of [`WIDTH`],
            /// `sums_stride` apart; the panel has `depth` words of each column.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn multiply(
                left: *const u32,
                stride: usize,
                rows: usize,
                panel: &[Line],
                depth: usize,
                sums: *mut f32,
                sums_stride: usize,
            ) {
                let mut row = 0;
                while row < rows {
                    // SAFETY: the caller's promises.
                    unsafe {
                        let (left, sums) = (left.add(row * stride), sums.add(row * sums_stride));
                        match rows - row {
                            12.. => tile::<12>(left, stride, panel.as_ptr(), depth, sums, sums_stride),
                            8.. => tile::<8>(left, stride, panel.as_ptr(), depth, sums, sums_stride),
                            _ => tile::<4>(left, stride, panel.as_ptr(), depth, sums, sums_stride),
                        }
                        row += match rows - row {
                            12.. => 12,
                            8.. => 8,
                            _ => 4,
                        };
                    }
                }
            }

            /// Sums of `R` rows, a multiple of 4, by one panel: 2·R registers of sums, 2 of weights, and a broadcast word.
            ///
            /// # Safety
            /// As [`multiply`].
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn tile<const R: usize>(
                left: *const u32,
                stride: usize,
                panel: *const Line,
                depth: usize,
                sums: *mut f32,
                sums_stride: usize,
            ) {
                // SAFETY: the caller's promises.
                unsafe {
                    let mut accumulators = [[_mm512_setzero_ps(); 2]; R];
                    for word in 0..depth {
                        let weights = panel.add(2 * word);
                        let weights = [_mm512_load_si512(weights.cast()), _mm512_load_si512(weights.add(1).cast())];
                        for (row, accumulators) in accumulators.iter_mut().enumerate() {
                            let pixel = _mm512_set1_epi32((*left.add(row * stride + word)).cast_signed());
                            accumulators[0] = $dot(accumulators[0], pixel, weights[0]);
                            accumulators[1] = $dot(accumulators[1], pixel, weights[1]);
                        }
                    }
                    for (row, accumulators) in accumulators.into_iter().enumerate() {
                        _mm512_storeu_ps(sums.add(row * sums_stride), accumulators[0]);
                        _mm512_storeu_ps(sums.add(row * sums_stride + 16), accumulators[1]);
                    }
                }
            }
        }
    };
}

products!(fp32, "avx512f,avx512bw,avx512dq,avx512vl", dot_f32);
products!(bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", dot_bf16);

/// One module for each kind of word in AVX2.
macro_rules! products_avx2 {
    ($module:ident, $words:ident) => {
        pub(super) mod $module {
            use super::{Line, WIDTH};
            use crate::avx2::tile;

            /// What rows come in multiples of.
            pub(in super::super) const ROWS: usize = 1;

            /// Sums of `rows` rows by one panel.
            ///
            /// # Safety
            /// As of the other kernels.
            #[target_feature(enable = "avx2,fma")]
            pub(in super::super) unsafe fn multiply(
                left: *const u32,
                stride: usize,
                rows: usize,
                panel: &[Line],
                depth: usize,
                sums: *mut f32,
                sums_stride: usize,
            ) {
                const LANES: usize = WIDTH / 16;
                // SAFETY: the caller's promises.
                unsafe {
                    tile::$words::multiply::<LANES>(
                        left,
                        stride,
                        rows,
                        panel.as_ptr(),
                        depth,
                        sums.cast(),
                        sums_stride,
                    );
                }
            }
        }
    };
}

products_avx2!(fp32_avx2, fp32);
products_avx2!(bf16_avx2, bf16);

/// bf16 with AMX.
pub(super) mod amx {
    use super::{Line, WIDTH};
    use crate::amx;

    /// What rows come in multiples of.
    pub(in super::super) const ROWS: usize = amx::ROWS;

    /// Sums of `rows` rows, a multiple of [`ROWS`], by one panel.
    ///
    /// # Safety
    /// There are [`amx::Tiles`] of sixteen rows. The rest as of the other kernels.
    pub(in super::super) unsafe fn multiply(
        left: *const u32,
        stride: usize,
        rows: usize,
        panel: &[Line],
        depth: usize,
        sums: *mut f32,
        sums_stride: usize,
    ) {
        const LANES: usize = WIDTH / 16;
        const { assert!(LANES == 2) };
        let panel = panel.as_ptr();
        let mut row = 0;
        while row < rows {
            let count = amx::BLOCK_ROWS.min(rows - row);
            // SAFETY: the caller's promises.
            unsafe {
                let part = amx::Rows { start: left.add(row * stride), stride, count };
                let sums = sums.add(row * sums_stride).cast();
                match count {
                    amx::BLOCK_ROWS => amx::square_bf16(part, panel, depth, sums, sums_stride),
                    _ => amx::bf16::strip::<LANES>(part, panel, depth, sums, sums_stride),
                }
            }
            row += count;
        }
    }
}
