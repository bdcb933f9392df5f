//! From sums to results: sixteen columns at a time, from the sum to the bits that are stored.

use std::mem::MaybeUninit;

use super::{Activation, Dequantize, Epilogue, Output, RowScale};
use crate::{
    element::{Bf16, Element},
    parallel::Destination,
};

/// A tile's sums: bits of fp32, or int32.
#[derive(Clone, Copy)]
pub(super) struct Sums<'a> {
    pub words: &'a [u32],
    /// From one row's to the next one's.
    pub stride: usize,
    pub rows: usize,
    /// The product's row that the first one is.
    pub first: usize,
    /// The product's column that the first one is, a panel's first.
    pub column: usize,
    /// Columns, of whole panels: results past the product's last are not written.
    pub width: usize,
    /// Of int8, what the activations' codes were lowered by before they were multiplied.
    pub lowered: i32,
}

/// One module for each set of instructions.
macro_rules! epilogue {
    ($set:ident, $features:literal) => {
        pub(super) mod $set {
            use super::*;
            use crate::$set::vector as v;

            /// An element that results are stored as.
            pub(super) trait Stored: Element {
                /// Stores 32 results; past the caches, if that is asked for and they are whole lines: whoever asks says by `sfence` when others
                /// may read them.
                ///
                /// # Safety
                /// The CPU has the features.
                unsafe fn store(results: [v::Floats; 2], places: &mut [MaybeUninit<Self>; 32], past_caches: bool);

                /// Stores the first `places.len()`, at most 16, of sixteen results; past the caches likewise.
                ///
                /// # Safety
                /// The CPU has the features.
                unsafe fn store_few(results: v::Floats, places: &mut [MaybeUninit<Self>], past_caches: bool);
            }

            impl Stored for f32 {
                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn store(results: [v::Floats; 2], places: &mut [MaybeUninit<Self>; 32], past_caches: bool) {
                    let start = places.as_mut_ptr().cast::<f32>();
                    let stream = past_caches && start.addr().is_multiple_of(64);
                    for (half, results) in results.into_iter().enumerate() {
                        // SAFETY: there are two times sixteen places.
                        unsafe {
                            let start = start.add(16 * half);
                            if stream { v::stream(start, results) } else { v::store(start, results) }
                        }
                    }
                }

                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn store_few(results: v::Floats, places: &mut [MaybeUninit<Self>], past_caches: bool) {
                    let start = places.as_mut_ptr().cast::<f32>();
                    // SAFETY: as many places are written as there are.
                    unsafe {
                        if past_caches && places.len() == 16 && start.addr().is_multiple_of(64) {
                            v::stream(start, results);
                        } else {
                            v::store_within(v::first(places.len()), start, results);
                        }
                    }
                }
            }

            impl Stored for Bf16 {
                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn store(results: [v::Floats; 2], places: &mut [MaybeUninit<Self>; 32], past_caches: bool) {
                    let start = places.as_mut_ptr().cast::<u16>();
                    let halves = v::round_two_to_bf16(results);
                    // SAFETY: there are 32 places.
                    unsafe {
                        if past_caches && start.addr().is_multiple_of(64) {
                            v::stream_two_bf16(start, halves);
                        } else {
                            v::store_two_bf16(start, halves);
                        }
                    }
                }

                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn store_few(results: v::Floats, places: &mut [MaybeUninit<Self>], _: bool) {
                    let halves = v::round_to_bf16(results);
                    // SAFETY: as many places are written as there are.
                    unsafe { v::store_bf16_within(v::first(places.len()), places.as_mut_ptr().cast(), halves) };
                }
            }

            /// The results of a tile.
            ///
            /// # Safety
            /// The CPU has the features; `sums` lie within the product, and nobody else touches these results. Where they go past the caches,
            /// the caller fences.
            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) unsafe fn finish(
                sums: Sums<'_>,
                columns: usize,
                epilogue: &Epilogue<'_>,
                output: Output,
            ) {
                // SAFETY: the caller's promises.
                unsafe {
                    if let Some(before) = epilogue.before {
                        let plain = Epilogue { activation: Activation::Identity, ..*epilogue };
                        match before {
                            Output::F32(place) => finish_as(sums, columns, &plain, place),
                            Output::Bf16(place) => finish_as(sums, columns, &plain, place),
                        }
                    }
                    match output {
                        Output::F32(place) => finish_as(sums, columns, epilogue, place),
                        Output::Bf16(place) => finish_as(sums, columns, epilogue, place),
                    }
                }
            }

            /// # Safety
            /// As [`finish`].
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn finish_as<E: Stored>(
                sums: Sums<'_>,
                columns: usize,
                epilogue: &Epilogue<'_>,
                place: Destination<MaybeUninit<E>>,
            ) {
                // SAFETY: the caller's promises.
                unsafe {
                    match epilogue.activation {
                        Activation::Identity => finish_rows::<E, false>(sums, columns, epilogue, place),
                        Activation::GeluTanh => finish_rows::<E, true>(sums, columns, epilogue, place),
                    }
                }
            }

            /// # Safety
            /// As [`finish`].
            #[target_feature(enable = $features)]
            unsafe fn finish_rows<E: Stored, const GELU: bool>(
                sums: Sums<'_>,
                columns: usize,
                epilogue: &Epilogue<'_>,
                place: Destination<MaybeUninit<E>>,
            ) {
                let Sums { words, stride, rows, first, column, width, lowered } = sums;
                let width = width.min(columns - column);
                for row in 0..rows {
                    let words = &words[row * stride..][..stride];
                    let row = first + row;
                    // SAFETY: sixteen sums from each register's first on, and whatever goes by columns has a value for each of a panel's.
                    let results = |at: usize| unsafe {
                        let bits = v::load_integers(words[at..at + 16].as_ptr().cast());
                        let mut results = match &epilogue.dequantize {
                            None => v::as_floats(bits),
                            Some(dequantize) => real(dequantize, lowered, bits, row, column + at),
                        };
                        if let Some(bias) = epilogue.bias.get(column + at..column + at + 16) {
                            results = v::add(results, v::load(bias.as_ptr()));
                        }
                        if GELU { gelu_tanh(results) } else { results }
                    };
                    // SAFETY: these results are the caller's own.
                    let places = unsafe { place.slice(row * columns + column, width) };
                    let (wide, rest) = places.as_chunks_mut::<32>();
                    let done = 32 * wide.len();
                    for (pair, places) in wide.iter_mut().enumerate() {
                        let results = [results(32 * pair), results(32 * pair + 16)];
                        // SAFETY: the CPU has the features.
                        unsafe { E::store(results, places, epilogue.past_caches) };
                    }
                    for (few, places) in rest.chunks_mut(16).enumerate() {
                        // SAFETY: the CPU has the features.
                        unsafe { E::store_few(results(done + 16 * few), places, epilogue.past_caches) };
                    }
                }
            }

            /// (sum − (zero − lowered) · total) · step_row · step_column.
            #[target_feature(enable = $features)]
            #[inline]
            fn real(
                dequantize: &Dequantize<'_>,
                lowered: i32,
                sums: v::Integers,
                row: usize,
                column: usize,
            ) -> v::Floats {
                let RowScale { step, zero } = dequantize.rows[row];
                let (steps, totals) = (&dequantize.columns[column..column + 16], &dequantize.sums[column..column + 16]);
                // SAFETY: both have sixteen values.
                let (steps, totals) = unsafe { (v::load(steps.as_ptr()), v::load_integers(totals.as_ptr())) };
                let sums = v::sub_integers(sums, v::mul_integers(v::splat_integer(zero - lowered), totals));
                v::mul(v::to_floats(sums), v::mul(v::splat(step), steps))
            }

            /// GELU in its tanh form, x·σ(2√(2/π)·(x + 0.044715·x³)), to a few units in the last place.
            #[target_feature(enable = $features)]
            #[inline]
            fn gelu_tanh(x: v::Floats) -> v::Floats {
                const TWICE_SQRT_2_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
                let factor = -TWICE_SQRT_2_OVER_PI * std::f32::consts::LOG2_E;
                let square = v::mul(x, x);
                // σ(u) = 1 / (1 + 2^t), t = −u·log₂e; beyond ±126 it is 0 or 1 to every digit.
                let slope = v::mul_add(square, v::splat(factor * 0.044_715), v::splat(factor));
                let t = v::mul(x, slope);
                let t = v::max(v::min(t, v::splat(126.0)), v::splat(-126.0));
                let n = v::round(t);
                let r = v::mul(v::sub(t, n), v::splat(std::f32::consts::LN_2));
                // Taylor's series of eʳ to the sixth power: its rest is below 1.3e-7 where |r| ≤ 0.347.
                let mut p = v::splat(1.0 / 720.0);
                for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
                    p = v::mul_add(p, r, v::splat(coefficient));
                }
                v::div(x, v::add(v::splat(1.0), v::scale_by_power(p, n)))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
epilogue!(avx512, "avx512f,avx512bw,avx512dq,avx512vl");
#[cfg(target_arch = "x86_64")]
epilogue!(avx2, "avx2,fma");
#[cfg(target_arch = "aarch64")]
epilogue!(neon, "neon");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    fn exact_gelu(x: f64) -> f64 {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
    }

    /// A kernel's `finish`.
    type Finish = unsafe fn(Sums<'_>, usize, &Epilogue<'_>, Output);

    /// # Safety
    /// The CPU has the kernels' instructions.
    unsafe fn check(finish: Finish) {
        let special = [0.0, -0.0, 1e-30, -1e-30, 40.0, -40.0, 3e38, f32::INFINITY, f32::NAN];
        let values: Vec<f32> = (-640..640).map(|i| i as f32 * 0.0137).chain(special).collect();
        for activation in [Activation::Identity, Activation::GeluTanh] {
            let epilogue = Epilogue { activation, ..Epilogue::plain() };
            for values in [48, 96, 39].into_iter().flat_map(|width| values.chunks(width)) {
                let mut sums = [0; 96];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = value.to_bits();
                }
                let mut wide = vec![MaybeUninit::new(7.0_f32); values.len()];
                let mut narrow = vec![MaybeUninit::new(Bf16(7)); values.len()];
                // SAFETY: the caller's promise; nothing goes by columns. Every element was set above.
                let (wide, narrow) = unsafe {
                    let sums = Sums { words: &sums, stride: 96, rows: 1, first: 0, column: 0, width: 96, lowered: 0 };
                    finish(sums, values.len(), &epilogue, Output::F32(Destination::new(wide.as_mut_ptr())));
                    finish(sums, values.len(), &epilogue, Output::Bf16(Destination::new(narrow.as_mut_ptr())));
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

    #[test]
    fn gelu_is_close_and_all_is_rounded_as_elements_are() {
        let cpu = Cpu::detect();
        // SAFETY: the CPU has the instructions.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            if cpu.avx512 {
                check(avx512::finish);
            }
            if cpu.avx2 {
                check(avx2::finish);
            }
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            if cpu.neon {
                check(neon::finish);
            }
        }
        if !(cpu.avx2 || cpu.neon) {
            eprintln!("SKIPPED: neither AVX2 nor NEON");
        }
    }
}
