//! Results on their way to memory: skip connection, kind, statistics.

use std::arch::x86_64::*;

use super::{
    super::{Call, Results},
    gather::load_bf16,
};

/// Writes sixteen results, plus what the skip connection has there, and returns them in fp32.
///
/// # Safety
/// `start` and the lanes of `mask` after it lie within the result, and nobody else touches them. The CPU has AVX-512 BF16 where
/// results are bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) unsafe fn put(call: &Call<'_>, start: usize, mask: __mmask16, result: __m512) -> __m512 {
    // SAFETY: the caller's promise; a skip connection is as long as the result.
    unsafe {
        let result = match call.skip {
            None => result,
            Some(Results::Fp32(skip)) => _mm512_add_ps(result, _mm512_maskz_loadu_ps(mask, skip.at(start))),
            Some(Results::Bf16(skip)) => _mm512_add_ps(result, load_bf16(mask, skip.at(start).cast())),
        };
        match call.out {
            Results::Fp32(out) => _mm512_mask_storeu_ps(out.at(start), mask, result),
            Results::Bf16(out) => store_bf16(out.at(start).cast(), 0, mask, result),
        }
        result
    }
}

/// Asks for the skip connection's sixteen elements from `start` on, which will be added soon.
#[inline]
pub(super) fn prefetch_skip(call: &Call<'_>, start: usize) {
    let place = match call.skip {
        None => return,
        Some(Results::Fp32(skip)) => skip.wrapping_at(start).cast::<i8>(),
        Some(Results::Bf16(skip)) => skip.wrapping_at(start).cast::<i8>(),
    };
    // SAFETY: a hint reads nothing, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(place) };
}

/// Writes the masked elements from `element` on of a row of words.
///
/// # Safety
/// They lie within the row.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn store_fp32(row: *mut u32, element: usize, mask: __mmask16, values: __m512) {
    // SAFETY: the caller's promise.
    unsafe { _mm512_mask_storeu_ps(row.cast::<f32>().add(element), mask, values) };
}

/// The same, rounded to bf16.
///
/// # Safety
/// They lie within the row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn store_bf16(row: *mut u32, element: usize, mask: __mmask16, values: __m512) {
    // SAFETY: the caller's promise; both are 256 bits.
    unsafe {
        let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
        _mm256_mask_storeu_epi16(row.cast::<i16>().add(element), mask, rounded);
    }
}

/// Sums of sixteen channels over the pixels of a part.
#[derive(Clone, Copy)]
pub(super) struct Running {
    first: __m512,
    sum: __m512,
    squares: __m512,
}

impl Running {
    /// Of a part whose first values are `first`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn from(first: __m512) -> Self {
        Self { first, sum: _mm512_setzero_ps(), squares: _mm512_setzero_ps() }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn add(&mut self, value: __m512) {
        let value = _mm512_sub_ps(value, self.first);
        self.sum = _mm512_add_ps(self.sum, value);
        self.squares = _mm512_fmadd_ps(value, value, self.squares);
    }

    /// Writes the masked channels of a part's three rows.
    ///
    /// # Safety
    /// They can be written, and nobody else touches them.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) unsafe fn write(&self, rows: [*mut f32; 3], mask: __mmask16) {
        for (row, values) in rows.into_iter().zip([self.first, self.sum, self.squares]) {
            // SAFETY: the caller's promise.
            unsafe { _mm512_mask_storeu_ps(row, mask, values) };
        }
    }
}
