//! From sums to results, with AVX-512: sixteen columns in a register, from the sum to the bits that are stored.

use std::{arch::x86_64::*, mem::MaybeUninit};

use super::{Activation, Dequantize, Epilogue, RowScale, WIDTH};
use crate::element::{Bf16, Element};

/// An element that registers of results are stored as.
pub(super) trait Stored: Element {
    /// Stores the first `places.len()`, at most 16, of sixteen results.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, DQ and VL.
    unsafe fn store(results: __m512, places: &mut [MaybeUninit<Self>]);
}

impl Stored for f32 {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    unsafe fn store(results: __m512, places: &mut [MaybeUninit<Self>]) {
        // SAFETY: as many places are written as there are.
        unsafe {
            match places.len() {
                16.. => _mm512_storeu_ps(places.as_mut_ptr().cast(), results),
                few => _mm512_mask_storeu_ps(places.as_mut_ptr().cast(), (1 << few) - 1, results),
            }
        }
    }
}

impl Stored for Bf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    unsafe fn store(results: __m512, places: &mut [MaybeUninit<Self>]) {
        // To the nearest, ties to even, as `Bf16::from_f32`.
        let bits = _mm512_castps_si512(results);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(results, results);
        let upper = _mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(rounded), nan, _mm512_set1_epi32(0x7fc0));
        let halves = _mm512_cvtepi32_epi16(upper);
        // SAFETY: as many places are written as there are.
        unsafe {
            match places.len() {
                16.. => _mm256_storeu_si256(places.as_mut_ptr().cast(), halves),
                few => _mm256_mask_storeu_epi16(places.as_mut_ptr().cast(), (1 << few) - 1, halves),
            }
        }
    }
}

/// The results of one row of a tile whose first column is `column`, into their places: one panel's, or what there is of it.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL; `row` is one of the product's, `column` a panel's first; `epilogue` fits the product.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(super) unsafe fn finish<E: Stored>(
    epilogue: &Epilogue<'_>,
    sums: &[u32; WIDTH],
    row: usize,
    column: usize,
    places: &mut [MaybeUninit<E>],
) {
    for ((lane, sums), places) in sums.as_chunks::<16>().0.iter().enumerate().zip(places.chunks_mut(16)) {
        let column = column + lane * 16;
        // SAFETY: sixteen sums; whatever goes by columns has a value for each of the panel's.
        unsafe {
            let bits = _mm512_loadu_si512(sums.as_ptr().cast());
            let mut results = match &epilogue.dequantize {
                None => _mm512_castsi512_ps(bits),
                Some(dequantize) => real(dequantize, bits, row, column),
            };
            if let Some(bias) = epilogue.bias.get(column..column + 16) {
                results = _mm512_add_ps(results, _mm512_loadu_ps(bias.as_ptr()));
            }
            if epilogue.activation == Activation::GeluTanh {
                results = gelu_tanh(results);
            }
            E::store(results, places);
        }
    }
}

/// (sum − zero · total) · step_row · step_column.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn real(dequantize: &Dequantize<'_>, sums: __m512i, row: usize, column: usize) -> __m512 {
    let RowScale { step, zero } = dequantize.rows[row];
    let (steps, totals) = (&dequantize.columns[column..column + 16], &dequantize.sums[column..column + 16]);
    // SAFETY: both have sixteen values.
    let (steps, totals) = unsafe { (_mm512_loadu_ps(steps.as_ptr()), _mm512_loadu_si512(totals.as_ptr().cast())) };
    let sums = _mm512_sub_epi32(sums, _mm512_mullo_epi32(_mm512_set1_epi32(zero), totals));
    _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_mul_ps(_mm512_set1_ps(step), steps))
}

/// GELU in its tanh form, x·σ(2√(2/π)·(x + 0.044715·x³)), to a few units in the last place.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn gelu_tanh(x: __m512) -> __m512 {
    const TWICE_SQRT_2_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
    let factor = -TWICE_SQRT_2_OVER_PI * std::f32::consts::LOG2_E;
    let square = _mm512_mul_ps(x, x);
    // σ(u) = 1 / (1 + 2^t), t = −u·log₂e; beyond ±126 it is 0 or 1 to every digit.
    let slope = _mm512_fmadd_ps(square, _mm512_set1_ps(factor * 0.044_715), _mm512_set1_ps(factor));
    let t = _mm512_mul_ps(x, slope);
    let t = _mm512_max_ps(_mm512_min_ps(t, _mm512_set1_ps(126.0)), _mm512_set1_ps(-126.0));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(t);
    let r = _mm512_mul_ps(_mm512_sub_ps(t, n), _mm512_set1_ps(std::f32::consts::LN_2));
    // Taylor's series of eʳ to the sixth power: its rest is below 1.3e-7 where |r| ≤ 0.347.
    let mut p = _mm512_set1_ps(1.0 / 720.0);
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    let one = _mm512_set1_ps(1.0);
    _mm512_div_ps(x, _mm512_add_ps(one, _mm512_scalef_ps(p, n)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    fn exact_gelu(x: f64) -> f64 {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
    }

    #[test]
    fn gelu_is_close_and_all_is_rounded_as_elements_are() {
        if !Cpu::detect().avx512 {
            eprintln!("SKIPPED: no AVX-512");
            return;
        }
        let special = [0.0, -0.0, 1e-30, -1e-30, 40.0, -40.0, 3e38, f32::INFINITY, f32::NAN];
        let values: Vec<f32> = (-640..640).map(|i| i as f32 * 0.0137).chain(special).collect();
        for activation in [Activation::Identity, Activation::GeluTanh] {
            let epilogue = Epilogue { dequantize: None, bias: &[], activation };
            for values in values.chunks(WIDTH) {
                let mut sums = [0; WIDTH];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = value.to_bits();
                }
                let mut wide = vec![MaybeUninit::new(7.0_f32); values.len()];
                let mut narrow = vec![MaybeUninit::new(Bf16(7)); values.len()];
                // SAFETY: the CPU has AVX-512; nothing goes by columns. Every element was set above.
                let (wide, narrow) = unsafe {
                    finish(&epilogue, &sums, 0, 0, &mut wide);
                    finish(&epilogue, &sums, 0, 0, &mut narrow);
                    (wide.assume_init_ref(), narrow.assume_init_ref())
                };
                for ((&value, &wide), narrow) in values.iter().zip(wide).zip(narrow) {
                    let (value, found) = (f64::from(value), f64::from(wide));
                    let expected = match activation {
                        Activation::Identity => value,
                        Activation::GeluTanh => exact_gelu(value),
                    };
                    let close = (found - expected).abs() < 1e-6 * value.abs().max(1e-30);
                    assert!(close || found == expected || found.is_nan() && expected.is_nan(), "{value}: {found}");
                    assert_eq!(*narrow, Bf16::from_f32(wide), "{value}");
                }
            }
        }
    }
}
