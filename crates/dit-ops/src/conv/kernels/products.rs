//! Sums of products of a factor's rows with panels of weights.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::super::packed::WIDTH;
use crate::gemm::Line;
#[cfg(target_arch = "x86_64")]
use crate::{
    avx512::tile::{AHEAD, dot_bf16, dot_f32},
    memory::prefetch,
};

/// Lines of a panel's row.
const LANES: usize = WIDTH / 16;

/// One module for each kind of word in AVX-512.
#[cfg(target_arch = "x86_64")]
macro_rules! products {
    ($module:ident, $features:literal, $dot:ident) => {
        pub(super) mod $module {
            use super::*;

            /// What rows come in multiples of.
            pub(in super::super) const ROWS: usize = 4;
            /// Panels whose results are held at a time.
            pub(in super::super) const PANELS: usize = 2;

            /// Sums of `rows` rows, a multiple of [`ROWS`], by panels that follow one another; panel p's are the columns from p·[`WIDTH`] on.
            ///
            /// # Safety
            /// The CPU has the features. `left` has `rows` rows of `depth` words, `stride` apart; `sums` has as many of [`WIDTH`] for each
            /// panel, `sums_stride` apart; each panel has `depth` words of each column.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn multiply(
                left: *const u32,
                stride: usize,
                rows: usize,
                panels: &[Line],
                depth: usize,
                sums: *mut f32,
                sums_stride: usize,
            ) {
                for (panel, lines) in panels.chunks_exact(LANES * depth).enumerate() {
                    let mut row = 0;
                    while row < rows {
                        // SAFETY: the caller's promises.
                        unsafe {
                            let (left, sums) = (left.add(row * stride), sums.add(row * sums_stride + panel * WIDTH));
                            match rows - row {
                                12.. => tile::<12>(left, stride, lines.as_ptr(), depth, sums, sums_stride),
                                8.. => tile::<8>(left, stride, lines.as_ptr(), depth, sums, sums_stride),
                                _ => tile::<4>(left, stride, lines.as_ptr(), depth, sums, sums_stride),
                            }
                            row += match rows - row {
                                12.. => 12,
                                8.. => 8,
                                _ => 4,
                            };
                        }
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
                        prefetch(weights.wrapping_add(2 * AHEAD));
                        prefetch(weights.wrapping_add(2 * AHEAD + 1));
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

#[cfg(target_arch = "x86_64")]
products!(fp32, "avx512f,avx512bw,avx512dq,avx512vl", dot_f32);
#[cfg(target_arch = "x86_64")]
products!(bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", dot_bf16);

/// One module for each kind of word where both factors are copied: with AVX2 and NEON, and where AVX-512 widens bf16.
macro_rules! products_copied {
    ($module:ident, $features:literal, $products:path, $rows:expr) => {
        pub(super) mod $module {
            use super::{LANES, Line, WIDTH};
            use $products as products;

            /// What rows come in multiples of.
            pub(in super::super) const ROWS: usize = $rows;
            /// Panels whose results are held at a time: more, so that rows are copied less often.
            pub(in super::super) const PANELS: usize = 4;

            /// Sums of `rows` rows, a multiple of [`ROWS`], by panels that follow one another.
            ///
            /// # Safety
            /// As of the other kernels.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn multiply(
                left: *const u32,
                stride: usize,
                rows: usize,
                panels: &[Line],
                depth: usize,
                sums: *mut f32,
                sums_stride: usize,
            ) {
                let panels = (panels.as_ptr(), panels.len() / (LANES * depth));
                let apart = (WIDTH, sums_stride);
                // SAFETY: the caller's promises.
                unsafe { products::multiply::<LANES>(left, stride, rows, panels, depth, sums.cast(), apart) };
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
products_copied!(fp32_avx2, "avx2,fma", crate::avx2::block::fp32, crate::blocks::ROWS);
#[cfg(target_arch = "x86_64")]
products_copied!(bf16_avx2, "avx2,fma", crate::avx2::block::bf16, crate::blocks::ROWS);
#[cfg(target_arch = "x86_64")]
products_copied!(bf16_widened, "avx512f,avx512bw,avx512dq,avx512vl", crate::avx512::widened, 4);
#[cfg(target_arch = "aarch64")]
products_copied!(fp32_neon, "neon", crate::neon::block::fp32, crate::blocks::ROWS);
#[cfg(target_arch = "aarch64")]
products_copied!(bf16_neon, "neon", crate::neon::block::bf16, crate::blocks::ROWS);

/// bf16 with AMX.
#[cfg(target_arch = "x86_64")]
pub(super) mod amx {
    use super::{LANES, Line, WIDTH};
    use crate::amx;

    /// What rows come in multiples of.
    pub(in super::super) const ROWS: usize = amx::ROWS;
    /// Panels whose results are held at a time.
    pub(in super::super) const PANELS: usize = 2;

    /// Sums of `rows` rows, a multiple of [`ROWS`], by panels that follow one another.
    ///
    /// # Safety
    /// There are [`amx::Tiles`] of sixteen rows. The rest as of the other kernels.
    pub(in super::super) unsafe fn multiply(
        left: *const u32,
        stride: usize,
        rows: usize,
        panels: &[Line],
        depth: usize,
        sums: *mut f32,
        sums_stride: usize,
    ) {
        const { assert!(LANES == 2) };
        for (panel, lines) in panels.chunks_exact(LANES * depth).enumerate() {
            let mut row = 0;
            while row < rows {
                let count = amx::BLOCK_ROWS.min(rows - row);
                // SAFETY: the caller's promises.
                unsafe {
                    let part = amx::Rows { start: left.add(row * stride), stride, count };
                    let sums = sums.add(row * sums_stride + panel * WIDTH).cast();
                    match count {
                        amx::BLOCK_ROWS => amx::square_bf16(part, lines.as_ptr(), depth, sums, sums_stride),
                        _ => amx::bf16::strip::<LANES>(part, lines.as_ptr(), depth, sums, sums_stride),
                    }
                }
                row += count;
            }
        }
    }
}
