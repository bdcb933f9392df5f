//! Sixteen numbers in two registers: the functions of AVX-512's, by the same names.

use std::arch::x86_64::*;

use crate::functions::{accesses, functions};
pub(crate) use crate::mask::{ALL, Mask, first};

/// Sixteen fp32 numbers.
pub(crate) type Floats = [__m256; 2];
/// Sixteen int32 numbers.
pub(crate) type Integers = [__m256i; 2];

impl Mask {
    /// All ones in its lanes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn bits(self) -> Integers {
        static EDGE: [i32; 32] = {
            let mut edge = [0; 32];
            let mut lane = 0;
            while lane < 16 {
                edge[lane] = -1;
                lane += 1;
            }
            edge
        };
        // SAFETY: sixteen numbers from 16 − count on, of which the mask has no more than 16, are there.
        unsafe {
            let start = EDGE.as_ptr().add(16 - self.count());
            [_mm256_loadu_si256(start.cast()), _mm256_loadu_si256(start.add(8).cast())]
        }
    }
}

functions! {
    "avx2,fma";

    fn zero() -> Floats { [_mm256_setzero_ps(); 2] }
    fn splat(value: f32) -> Floats { [_mm256_set1_ps(value); 2] }
    fn add(a: Floats, b: Floats) -> Floats { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    fn sub(a: Floats, b: Floats) -> Floats { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    fn mul(a: Floats, b: Floats) -> Floats { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    fn div(a: Floats, b: Floats) -> Floats { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    /// a·b + c, rounded once.
    fn mul_add(a: Floats, b: Floats, c: Floats) -> Floats {
        [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
    }
    /// c − a·b, rounded once.
    fn sub_product(a: Floats, b: Floats, c: Floats) -> Floats {
        [_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])]
    }
    /// The lesser; `b` if one is NaN.
    fn min(a: Floats, b: Floats) -> Floats { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    /// The greater; `b` if one is NaN.
    fn max(a: Floats, b: Floats) -> Floats { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    /// To the nearest whole number, ties to even.
    fn round(a: Floats) -> Floats {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])]
    }
    /// a·2ⁿ, n a whole number from −252 to 254; a larger one is taken for 254.
    fn scale_by_power(a: Floats, n: Floats) -> Floats {
        [scale_eight_by_power(a[0], n[0]), scale_eight_by_power(a[1], n[1])]
    }
    /// By two powers of two, as one would not reach subnormal results.
    fn scale_eight_by_power(a: __m256, n: __m256) -> __m256 {
        let n = _mm256_cvtps_epi32(_mm256_min_ps(n, _mm256_set1_ps(254.0)));
        let half = _mm256_srai_epi32::<1>(n);
        let power = |n: __m256i| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
        _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(_mm256_sub_epi32(n, half)))
    }
    /// a / b: AVX2's estimate is too rough, and bettering it takes as long as dividing.
    fn divide_roughly(a: Floats, b: Floats) -> Floats { div(a, b) }
    fn splat_integer(value: i32) -> Integers { [_mm256_set1_epi32(value); 2] }
    fn sub_integers(a: Integers, b: Integers) -> Integers { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
    /// The low halves of the products.
    fn mul_integers(a: Integers, b: Integers) -> Integers {
        [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])]
    }
    fn to_floats(a: Integers) -> Floats { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    /// The same bits.
    fn as_floats(a: Integers) -> Floats { [_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(a[1])] }
    /// Sixteen bf16: to the nearest, ties to even, as `Bf16::from_f32`.
    fn round_to_bf16(a: Floats) -> __m256i {
        // The packing takes four lanes of either in turn.
        let packed = _mm256_packus_epi32(upper_half(a[0]), upper_half(a[1]));
        _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
    }
    /// 32 bf16, likewise: those of the first, then those of the second.
    fn round_two_to_bf16(a: [Floats; 2]) -> [__m256i; 2] { [round_to_bf16(a[0]), round_to_bf16(a[1])] }
    /// Eight bf16 as int32.
    fn upper_half(a: __m256) -> __m256i {
        let bits = _mm256_castps_si256(a);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
        _mm256_blendv_epi8(_mm256_srli_epi32::<16>(rounded), _mm256_set1_epi32(0x7fc0), nan)
    }
    /// Eight bf16 as fp32.
    fn from_bf16(halves: __m128i) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }
}

accesses! {
    "avx2,fma";

    /// Sixteen numbers.
    unsafe fn load(start: *const f32) -> Floats { [_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(8))] }
    /// Sixteen numbers.
    unsafe fn store(start: *mut f32, a: Floats) {
        _mm256_storeu_ps(start, a[0]);
        _mm256_storeu_ps(start.add(8), a[1]);
    }
    /// Sixteen numbers to a whole line, past the caches.
    unsafe fn stream(start: *mut f32, a: Floats) {
        _mm256_stream_ps(start, a[0]);
        _mm256_stream_ps(start.add(8), a[1]);
    }
    /// Sixteen numbers.
    unsafe fn load_integers(start: *const i32) -> Integers {
        [_mm256_loadu_si256(start.cast()), _mm256_loadu_si256(start.add(8).cast())]
    }
    /// The lanes of the mask, zeros in the others.
    unsafe fn load_within(mask: Mask, start: *const f32) -> Floats {
        if mask.count() == 16 {
            return load(start);
        }
        let [low, high] = mask.bits();
        [_mm256_maskload_ps(start, low), _mm256_maskload_ps(start.wrapping_add(8), high)]
    }
    /// The lanes of the mask.
    unsafe fn store_within(mask: Mask, start: *mut f32, a: Floats) {
        if mask.count() == 16 {
            return store(start, a);
        }
        let [low, high] = mask.bits();
        _mm256_maskstore_ps(start, low, a[0]);
        _mm256_maskstore_ps(start.wrapping_add(8), high, a[1]);
    }
    /// bf16 numbers in the lanes of the mask, zeros in the others.
    unsafe fn load_bf16_within(mask: Mask, start: *const u16) -> Floats {
        let mut some = [0_u16; 16];
        let start = if mask.count() == 16 {
            start
        } else {
            std::ptr::copy_nonoverlapping(start, some.as_mut_ptr(), mask.count());
            some.as_ptr()
        };
        let [low, high] = [_mm_loadu_si128(start.cast()), _mm_loadu_si128(start.add(8).cast())];
        [from_bf16(low), from_bf16(high)]
    }
    /// Sixteen bf16.
    unsafe fn store_bf16(start: *mut u16, a: __m256i) { _mm256_storeu_si256(start.cast(), a) }
    /// 32 bf16.
    unsafe fn store_two_bf16(start: *mut u16, a: [__m256i; 2]) {
        store_bf16(start, a[0]);
        store_bf16(start.add(16), a[1]);
    }
    /// 32 bf16 to a whole line, past the caches.
    unsafe fn stream_two_bf16(start: *mut u16, a: [__m256i; 2]) {
        _mm256_stream_si256(start.cast(), a[0]);
        _mm256_stream_si256(start.add(16).cast(), a[1]);
    }
    /// The lanes of the mask.
    unsafe fn store_bf16_within(mask: Mask, start: *mut u16, a: __m256i) {
        if mask.count() == 16 {
            return store_bf16(start, a);
        }
        let mut all = [0_u16; 16];
        store_bf16(all.as_mut_ptr(), a);
        std::ptr::copy_nonoverlapping(all.as_ptr(), start, mask.count());
    }
}
