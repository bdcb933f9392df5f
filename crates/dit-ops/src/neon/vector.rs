//! Sixteen numbers in four registers: the functions of AVX-512's, by the same names.

use std::{arch::aarch64::*, array::from_fn};

use crate::functions::{accesses, functions};
pub(crate) use crate::mask::{ALL, Mask, first};

/// Sixteen fp32 numbers.
pub(crate) type Floats = [float32x4_t; 4];
/// Sixteen int32 numbers.
pub(crate) type Integers = [int32x4_t; 4];
/// Sixteen bf16 numbers.
pub(crate) type Halves = [uint16x8_t; 2];

functions! {
    "neon";

    fn zero() -> Floats { splat(0.0) }
    fn splat(value: f32) -> Floats { [vdupq_n_f32(value); 4] }
    fn add(a: Floats, b: Floats) -> Floats { from_fn(|i| vaddq_f32(a[i], b[i])) }
    fn sub(a: Floats, b: Floats) -> Floats { from_fn(|i| vsubq_f32(a[i], b[i])) }
    fn mul(a: Floats, b: Floats) -> Floats { from_fn(|i| vmulq_f32(a[i], b[i])) }
    fn div(a: Floats, b: Floats) -> Floats { from_fn(|i| vdivq_f32(a[i], b[i])) }
    /// a·b + c, rounded once.
    fn mul_add(a: Floats, b: Floats, c: Floats) -> Floats { from_fn(|i| vfmaq_f32(c[i], a[i], b[i])) }
    /// c − a·b, rounded once.
    fn sub_product(a: Floats, b: Floats, c: Floats) -> Floats { from_fn(|i| vfmsq_f32(c[i], a[i], b[i])) }
    /// The lesser; `b` if one is NaN.
    fn min(a: Floats, b: Floats) -> Floats { from_fn(|i| vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i])) }
    /// The greater; `b` if one is NaN.
    fn max(a: Floats, b: Floats) -> Floats { from_fn(|i| vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i])) }
    /// To the nearest whole number, ties to even.
    fn round(a: Floats) -> Floats { from_fn(|i| vrndnq_f32(a[i])) }
    /// a·2ⁿ, n a whole number from −252 to 254; a larger one is taken for 254.
    fn scale_by_power(a: Floats, n: Floats) -> Floats { from_fn(|i| scale_four_by_power(a[i], n[i])) }
    /// By two powers of two, as one would not reach subnormal results.
    fn scale_four_by_power(a: float32x4_t, n: float32x4_t) -> float32x4_t {
        let n = vcvtnq_s32_f32(vminnmq_f32(n, vdupq_n_f32(254.0)));
        let half = vshrq_n_s32::<1>(n);
        let power = |n: int32x4_t| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))));
        vmulq_f32(vmulq_f32(a, power(half)), power(vsubq_s32(n, half)))
    }
    /// a / b with a relative error below 2⁻¹⁵, b at most 2¹²⁶: NEON's estimate is of eight bits, and Newton's step doubles them.
    fn divide_roughly(a: Floats, b: Floats) -> Floats {
        from_fn(|i| {
            let estimate = vrecpeq_f32(b[i]);
            vmulq_f32(a[i], vmulq_f32(estimate, vrecpsq_f32(b[i], estimate)))
        })
    }
    fn splat_integer(value: i32) -> Integers { [vdupq_n_s32(value); 4] }
    fn sub_integers(a: Integers, b: Integers) -> Integers { from_fn(|i| vsubq_s32(a[i], b[i])) }
    /// The low halves of the products.
    fn mul_integers(a: Integers, b: Integers) -> Integers { from_fn(|i| vmulq_s32(a[i], b[i])) }
    fn to_floats(a: Integers) -> Floats { from_fn(|i| vcvtq_f32_s32(a[i])) }
    /// The same bits.
    fn as_floats(a: Integers) -> Floats { from_fn(|i| vreinterpretq_f32_s32(a[i])) }
    /// Sixteen bf16: to the nearest, ties to even, as `Bf16::from_f32`.
    fn round_to_bf16(a: Floats) -> Halves {
        [vcombine_u16(upper_half(a[0]), upper_half(a[1])), vcombine_u16(upper_half(a[2]), upper_half(a[3]))]
    }
    /// 32 bf16, likewise: those of the first, then those of the second.
    fn round_two_to_bf16(a: [Floats; 2]) -> [Halves; 2] { [round_to_bf16(a[0]), round_to_bf16(a[1])] }
    /// Four bf16.
    fn upper_half(a: float32x4_t) -> uint16x4_t {
        let bits = vreinterpretq_u32_f32(a);
        let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
        let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        let number = vceqq_f32(a, a);
        vshrn_n_u32::<16>(vbslq_u32(number, rounded, vdupq_n_u32(0x7fc0_0000)))
    }
    /// Four bf16 as fp32.
    fn from_bf16(halves: uint16x4_t) -> float32x4_t { vreinterpretq_f32_u32(vshll_n_u16::<16>(halves)) }
}

accesses! {
    "neon";

    /// Sixteen numbers.
    unsafe fn load(start: *const f32) -> Floats { from_fn(|i| vld1q_f32(start.add(4 * i))) }
    /// Sixteen numbers.
    unsafe fn store(start: *mut f32, a: Floats) {
        for (i, a) in a.into_iter().enumerate() {
            vst1q_f32(start.add(4 * i), a);
        }
    }
    /// Sixteen numbers to a whole line: what goes past the caches on other CPUs. Arm's do so by themselves once they see line after line written whole.
    unsafe fn stream(start: *mut f32, a: Floats) { store(start, a); }
    /// Sixteen numbers.
    unsafe fn load_integers(start: *const i32) -> Integers { from_fn(|i| vld1q_s32(start.add(4 * i))) }
    /// The lanes of the mask, zeros in the others.
    unsafe fn load_within(mask: Mask, start: *const f32) -> Floats {
        if mask.count() == 16 {
            return load(start);
        }
        let mut some = [0.0_f32; 16];
        std::ptr::copy_nonoverlapping(start, some.as_mut_ptr(), mask.count());
        load(some.as_ptr())
    }
    /// The lanes of the mask.
    unsafe fn store_within(mask: Mask, start: *mut f32, a: Floats) {
        if mask.count() == 16 {
            return store(start, a);
        }
        let mut all = [0.0_f32; 16];
        store(all.as_mut_ptr(), a);
        std::ptr::copy_nonoverlapping(all.as_ptr(), start, mask.count());
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
        from_fn(|i| from_bf16(vld1_u16(start.add(4 * i))))
    }
    /// Sixteen bf16.
    unsafe fn store_bf16(start: *mut u16, a: Halves) {
        vst1q_u16(start, a[0]);
        vst1q_u16(start.add(8), a[1]);
    }
    /// 32 bf16.
    unsafe fn store_two_bf16(start: *mut u16, a: [Halves; 2]) {
        store_bf16(start, a[0]);
        store_bf16(start.add(16), a[1]);
    }
    /// 32 bf16 to a whole line, as [`stream`].
    unsafe fn stream_two_bf16(start: *mut u16, a: [Halves; 2]) { store_two_bf16(start, a); }
    /// The lanes of the mask.
    unsafe fn store_bf16_within(mask: Mask, start: *mut u16, a: Halves) {
        if mask.count() == 16 {
            return store_bf16(start, a);
        }
        let mut all = [0_u16; 16];
        store_bf16(all.as_mut_ptr(), a);
        std::ptr::copy_nonoverlapping(all.as_ptr(), start, mask.count());
    }
}
