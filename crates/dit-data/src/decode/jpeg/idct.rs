//! The inverse DCT of Loeffler, Ligtenberg & Moschytz (ICASSP 1989), with eleven multiplications a line, in the fixed-point
//! arithmetic that libjpeg calls "islow": constants of 13 bits, 2 bits kept between the passes, every shift rounding half up.
//! The additions of two inputs wrap at 16 bits and intermediate values saturate there, as in libjpeg-turbo's vector code; only
//! damaged files reach that.

/// `round(x · 2¹³)` for the paper's rotations.
mod c {
    pub(super) const R0_298: i32 = 2446;
    pub(super) const R0_390: i32 = 3196;
    pub(super) const R0_541: i32 = 4433;
    pub(super) const R0_765: i32 = 6270;
    pub(super) const R0_899: i32 = 7373;
    pub(super) const R1_175: i32 = 9633;
    pub(super) const R1_501: i32 = 12299;
    pub(super) const R1_847: i32 = 15137;
    pub(super) const R1_961: i32 = 16069;
    pub(super) const R2_053: i32 = 16819;
    pub(super) const R2_562: i32 = 20995;
    pub(super) const R3_072: i32 = 25172;
}

const CONSTANT_BITS: u32 = 13;
const KEPT_BITS: u32 = 2;

/// Eight one-dimensional transforms side by side: `x[k][lane]` holds frequency k, then sample k.
#[inline(always)]
fn pass<const SHIFT: u32>(x: &mut [[i32; 8]; 8]) {
    let wrap = |sum: i32| i32::from(sum as i16);
    let descale = |sum: i32| (sum.wrapping_add(1 << (SHIFT - 1)) >> SHIFT).clamp(-32768, 32767);
    let [r0, r1, r2, r3, r4, r5, r6, r7] = x;
    let lanes = r0.iter_mut().zip(r1).zip(r2).zip(r3).zip(r4).zip(r5).zip(r6).zip(r7);
    for (((((((r0, r1), r2), r3), r4), r5), r6), r7) in lanes {
        let (x0, x1, x2, x3, x4, x5, x6, x7) = (*r0, *r1, *r2, *r3, *r4, *r5, *r6, *r7);

        // Even part: a rotation by 6π/16 of (2, 6), a butterfly of (0, 4).
        let rotated = (x2 + x6) * c::R0_541;
        let even2 = rotated - x6 * c::R1_847;
        let even3 = rotated + x2 * c::R0_765;
        let even0 = wrap(x0 + x4) << CONSTANT_BITS;
        let even1 = wrap(x0 - x4) << CONSTANT_BITS;
        let (p0, p3) = (even0.wrapping_add(even3), even0.wrapping_sub(even3));
        let (p1, p2) = (even1.wrapping_add(even2), even1.wrapping_sub(even2));

        // Odd part.
        let (s73, s51) = (wrap(x7 + x3), wrap(x5 + x1));
        let both = (s73 + s51).wrapping_mul(c::R1_175);
        let a = both.wrapping_sub(s73 * c::R1_961);
        let b = both.wrapping_sub(s51 * c::R0_390);
        let z71 = (x7 + x1).wrapping_mul(c::R0_899);
        let z53 = (x5 + x3).wrapping_mul(c::R2_562);
        let o0 = (x7 * c::R0_298).wrapping_sub(z71).wrapping_add(a);
        let o1 = (x5 * c::R2_053).wrapping_sub(z53).wrapping_add(b);
        let o2 = (x3 * c::R3_072).wrapping_sub(z53).wrapping_add(a);
        let o3 = (x1 * c::R1_501).wrapping_sub(z71).wrapping_add(b);

        *r0 = descale(p0.wrapping_add(o3));
        *r7 = descale(p0.wrapping_sub(o3));
        *r1 = descale(p1.wrapping_add(o2));
        *r6 = descale(p1.wrapping_sub(o2));
        *r2 = descale(p2.wrapping_add(o1));
        *r5 = descale(p2.wrapping_sub(o1));
        *r3 = descale(p3.wrapping_add(o0));
        *r4 = descale(p3.wrapping_sub(o0));
    }
}

/// The 8×8 samples of a block of quantised coefficients in natural order, written to the rows of `plane` that begin at `at`,
/// `stride` apart. `flat` says that only the first coefficient may differ from zero.
#[inline(always)]
pub(super) fn block(
    coefficients: &[i16; 64],
    quant: &[i16; 64],
    flat: bool,
    plane: &mut [u8],
    at: usize,
    stride: usize,
) {
    if flat {
        // Both passes, with only the constant term.
        let kept = i32::from(coefficients[0].wrapping_mul(quant[0]).wrapping_shl(KEPT_BITS));
        let level = (((kept + 16) >> 5) + 128).clamp(0, 255) as u8;
        for row in 0..8 {
            plane[at + row * stride..][..8].fill(level);
        }
        return;
    }
    let mut x = [[0i32; 8]; 8];
    let lines = coefficients.as_chunks::<8>().0.iter().zip(quant.as_chunks::<8>().0);
    for (row, (line, quant)) in x.iter_mut().zip(lines) {
        *row = std::array::from_fn(|lane| i32::from(line[lane].wrapping_mul(quant[lane])));
    }
    pass::<{ CONSTANT_BITS - KEPT_BITS }>(&mut x);
    let mut turned: [[i32; 8]; 8] = std::array::from_fn(|k| std::array::from_fn(|lane| x[lane][k]));
    pass::<{ CONSTANT_BITS + KEPT_BITS + 3 }>(&mut turned);
    let samples: [[i32; 8]; 8] = std::array::from_fn(|row| std::array::from_fn(|column| turned[column][row]));
    for (row, line) in samples.iter().enumerate() {
        plane[at + row * stride..][..8].copy_from_slice(&line.map(|sample| (sample + 128).clamp(0, 255) as u8));
    }
}
