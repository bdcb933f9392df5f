//! Results on their way to memory: skip connection, kind, statistics.

use super::super::{Call, Results};
use crate::memory::prefetch;

/// Asks for the skip connection's sixteen elements from `start` on, which will be added soon.
#[inline]
pub(super) fn prefetch_skip(call: &Call<'_>, start: usize) {
    let place = match call.skip {
        None => return,
        Some(Results::Fp32(skip)) => skip.wrapping_at(start).cast::<i8>(),
        Some(Results::Bf16(skip)) => skip.wrapping_at(start).cast::<i8>(),
    };
    prefetch(place);
}

/// One module for each set of instructions, and for AVX-512 with those of bf16.
macro_rules! output {
    ($module:ident, $set:ident, $features:literal, $features_bf16:literal, $to_bf16:ident) => {
        pub(super) mod $module {
            use super::*;
            use crate::$set::vector as v;

            /// Writes sixteen results, plus what the skip connection has there, and returns them in fp32.
            ///
            /// # Safety
            /// `start` and the lanes of `mask` after it lie within the result, and nobody else touches them. The CPU has the features of bf16
            /// where results are bf16.
            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) unsafe fn put(
                call: &Call<'_>,
                start: usize,
                mask: v::Mask,
                result: v::Floats,
            ) -> v::Floats {
                // SAFETY: the caller's promise; a skip connection is as long as the result.
                unsafe {
                    let result = match call.skip {
                        None => result,
                        Some(Results::Fp32(skip)) => v::add(result, v::load_within(mask, skip.at(start))),
                        Some(Results::Bf16(skip)) => v::add(result, v::load_bf16_within(mask, skip.at(start).cast())),
                    };
                    match call.out {
                        Results::Fp32(out) => v::store_within(mask, out.at(start), result),
                        Results::Bf16(out) => store_bf16(out.at(start).cast(), 0, mask, result),
                    }
                    result
                }
            }

            /// Writes the masked elements from `element` on of a row of words.
            ///
            /// # Safety
            /// They lie within the row.
            #[allow(dead_code, reason = "a module of AVX-512 BF16 is for rows of bf16")]
            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) unsafe fn store_fp32(row: *mut u32, element: usize, mask: v::Mask, values: v::Floats) {
                // SAFETY: the caller's promise.
                unsafe { v::store_within(mask, row.cast::<f32>().add(element), values) };
            }

            /// The same, rounded to bf16.
            ///
            /// # Safety
            /// They lie within the row.
            #[target_feature(enable = $features_bf16)]
            #[inline]
            pub(in super::super) unsafe fn store_bf16(row: *mut u32, element: usize, mask: v::Mask, values: v::Floats) {
                // SAFETY: the caller's promise.
                unsafe {
                    v::store_bf16_within(mask, row.cast::<u16>().add(element), v::$to_bf16(values));
                }
            }

            /// Sums of sixteen channels over the pixels of a part.
            #[derive(Clone, Copy)]
            pub(in super::super) struct Running {
                first: v::Floats,
                sum: v::Floats,
                squares: v::Floats,
            }

            impl Running {
                /// Of a part whose first values are `first`.
                #[target_feature(enable = $features)]
                #[inline]
                pub(in super::super) fn from(first: v::Floats) -> Self {
                    Self { first, sum: v::zero(), squares: v::zero() }
                }

                #[target_feature(enable = $features)]
                #[inline]
                pub(in super::super) fn add(&mut self, value: v::Floats) {
                    let value = v::sub(value, self.first);
                    self.sum = v::add(self.sum, value);
                    self.squares = v::mul_add(value, value, self.squares);
                }

                /// Writes the masked channels of a part's three rows.
                ///
                /// # Safety
                /// They can be written, and nobody else touches them.
                #[target_feature(enable = $features)]
                #[inline]
                pub(in super::super) unsafe fn write(&self, rows: [*mut f32; 3], mask: v::Mask) {
                    for (row, values) in rows.into_iter().zip([self.first, self.sum, self.squares]) {
                        // SAFETY: the caller's promise.
                        unsafe { v::store_within(mask, row, values) };
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
output!(avx512, avx512, "avx512f,avx512bw,avx512dq,avx512vl", "avx512f,avx512bw,avx512dq,avx512vl", round_to_bf16);
#[cfg(target_arch = "x86_64")]
output!(
    avx512_bf16,
    avx512,
    "avx512f,avx512bw,avx512dq,avx512vl",
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
    convert_to_bf16
);
#[cfg(target_arch = "x86_64")]
output!(avx2, avx2, "avx2,fma", "avx2,fma", round_to_bf16);
#[cfg(target_arch = "aarch64")]
output!(neon, neon, "neon", "neon", round_to_bf16);
