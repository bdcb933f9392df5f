//! Sixteen numbers in a register. Kernels are written once, with these functions or with those of the same names for AVX2 and NEON.
use std::arch::x86_64::*;

use crate::functions::{accesses, functions};

/// Sixteen fp32 numbers.
pub(crate) type Floats = __m512;
/// Sixteen int32 numbers.
pub(crate) type Integers = __m512i;
/// Some first lanes.
pub(crate) type Mask = __mmask16;

/// All lanes.
pub(crate) const ALL: Mask = !0;

/// The first `count` lanes, sixteen at most.
#[inline(always)]
pub(crate) fn first(count: usize) -> Mask {
    if count >= 16 { ALL } else { (1 << count) - 1 }
}

functions! {
    "avx512f,avx512bw,avx512dq,avx512vl";

    fn zero() -> Floats { _mm512_setzero_ps() }
    fn splat(value: f32) -> Floats { _mm512_set1_ps(value) }
    fn add(a: Floats, b: Floats) -> Floats { _mm512_add_ps(a, b) }
    fn sub(a: Floats, b: Floats) -> Floats { _mm512_sub_ps(a, b) }
    fn mul(a: Floats, b: Floats) -> Floats { _mm512_mul_ps(a, b) }
    fn div(a: Floats, b: Floats) -> Floats { _mm512_div_ps(a, b) }
    /// a·b + c, rounded once.
    fn mul_add(a: Floats, b: Floats, c: Floats) -> Floats { _mm512_fmadd_ps(a, b, c) }
    /// c − a·b, rounded once.
    fn sub_product(a: Floats, b: Floats, c: Floats) -> Floats { _mm512_fnmadd_ps(a, b, c) }
    /// The lesser; `b` if one is NaN.
    fn min(a: Floats, b: Floats) -> Floats { _mm512_min_ps(a, b) }
    /// The greater; `b` if one is NaN.
    fn max(a: Floats, b: Floats) -> Floats { _mm512_max_ps(a, b) }
    /// To the nearest whole number, ties to even.
    fn round(a: Floats) -> Floats { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    /// a·2ⁿ, n a whole number.
    fn scale_by_power(a: Floats, n: Floats) -> Floats { _mm512_scalef_ps(a, n) }
    /// a / b with a relative error below 2⁻¹⁴.
    fn divide_roughly(a: Floats, b: Floats) -> Floats { _mm512_mul_ps(a, _mm512_rcp14_ps(b)) }
    /// The lanes of the mask, zeros in the others.
    fn keep(mask: Mask, a: Floats) -> Floats { _mm512_maskz_mov_ps(mask, a) }
    /// The lanes where a is not less than b.
    fn unless_less(a: Floats, b: Floats) -> Mask { _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(a, b) }
    /// [`max`] in the lanes of the mask, `a` in the others.
    fn max_within(mask: Mask, a: Floats, b: Floats) -> Floats { _mm512_mask_max_ps(a, mask, a, b) }
    /// The sum of all lanes.
    fn sum(a: Floats) -> f32 { _mm512_reduce_add_ps(a) }
    /// The greatest of all lanes.
    fn greatest(a: Floats) -> f32 { _mm512_reduce_max_ps(a) }
    fn splat_integer(value: i32) -> Integers { _mm512_set1_epi32(value) }
    fn sub_integers(a: Integers, b: Integers) -> Integers { _mm512_sub_epi32(a, b) }
    /// The low halves of the products.
    fn mul_integers(a: Integers, b: Integers) -> Integers { _mm512_mullo_epi32(a, b) }
    fn to_floats(a: Integers) -> Floats { _mm512_cvtepi32_ps(a) }
    /// The same bits.
    fn as_floats(a: Integers) -> Floats { _mm512_castsi512_ps(a) }
    /// Sixteen bf16: to the nearest, ties to even, as `Bf16::from_f32`.
    fn round_to_bf16(a: Floats) -> __m256i {
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded_bits(a)))
    }
    /// 32 bf16, likewise: those of the first, then those of the second.
    fn round_two_to_bf16(a: [Floats; 2]) -> __m512i {
        // The upper half of each word.
        let upper = _mm512_set_epi16(
            63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
        );
        _mm512_permutex2var_epi16(rounded_bits(a[0]), upper, rounded_bits(a[1]))
    }
    /// Bf16 in the upper halves, and something in the lower ones.
    fn rounded_bits(a: Floats) -> Integers {
        let bits = _mm512_castps_si512(a);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
        _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0_0000))
    }
}

/// The same by AVX-512 BF16's instruction, which takes subnormal numbers for zero.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(crate) fn convert_to_bf16(a: Floats) -> __m256i {
    // SAFETY: both types are 256 bits of anything.
    unsafe { std::mem::transmute(_mm512_cvtneps_pbh(a)) }
}

/// 32 bf16, likewise: those of the first, then those of the second.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(crate) fn convert_two_to_bf16(a: [Floats; 2]) -> __m512i {
    // SAFETY: both types are 512 bits of anything.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(a[1], a[0])) }
}

accesses! {
    "avx512f,avx512bw,avx512dq,avx512vl";

    /// Sixteen numbers.
    unsafe fn load(start: *const f32) -> Floats { _mm512_loadu_ps(start) }
    /// Sixteen numbers.
    unsafe fn store(start: *mut f32, a: Floats) { _mm512_storeu_ps(start, a) }
    /// Sixteen numbers to a whole line, past the caches.
    unsafe fn stream(start: *mut f32, a: Floats) { _mm512_stream_ps(start, a) }
    /// Sixteen numbers.
    unsafe fn load_integers(start: *const i32) -> Integers { _mm512_loadu_si512(start.cast()) }
    /// The lanes of the mask, zeros in the others.
    unsafe fn load_within(mask: Mask, start: *const f32) -> Floats { _mm512_maskz_loadu_ps(mask, start) }
    /// The lanes of the mask.
    unsafe fn store_within(mask: Mask, start: *mut f32, a: Floats) { _mm512_mask_storeu_ps(start, mask, a) }
    /// bf16 numbers in the lanes of the mask, zeros in the others.
    unsafe fn load_bf16_within(mask: Mask, start: *const u16) -> Floats {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, start.cast()))))
    }
    /// 32 bf16.
    unsafe fn store_two_bf16(start: *mut u16, a: __m512i) { _mm512_storeu_si512(start.cast(), a) }
    /// 32 bf16 to a whole line, past the caches.
    unsafe fn stream_two_bf16(start: *mut u16, a: __m512i) { _mm512_stream_si512(start.cast(), a) }
    /// The lanes of the mask.
    unsafe fn store_bf16_within(mask: Mask, start: *mut u16, a: __m256i) {
        _mm256_mask_storeu_epi16(start.cast(), mask, a)
    }
}
