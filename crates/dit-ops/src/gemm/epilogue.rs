//! From sums to results: sixteen columns at a time, from the sum to the bits that are stored.

use std::mem::MaybeUninit;

use super::{Activation, Dequantize, Epilogue, Output, RowScale, WIDTH};
use crate::element::{Bf16, Element};

/// One module for each set of instructions.
macro_rules! epilogue {
    ($set:ident, $features:literal) => {
        pub(super) mod $set {
            use super::*;
            use crate::$set::vector as v;

            /// An element that results are stored as.
            pub(super) trait Stored: Element {
                /// Stores the first `places.len()`, at most 16, of sixteen results; past the caches, if that is asked for and
                /// they are whole lines.
                ///
                /// # Safety
                /// The CPU has the features.
                unsafe fn store(results: v::Floats, places: &mut [MaybeUninit<Self>], past_caches: bool);
            }

            impl Stored for f32 {
                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn store(results: v::Floats, places: &mut [MaybeUninit<Self>], past_caches: bool) {
                    // SAFETY: as many places are written as there are.
                    unsafe {
                        match places.len() {
                            16.. if past_caches && places.as_ptr().addr().is_multiple_of(64) => {
                                v::stream(places.as_mut_ptr().cast(), results);
                            }
                            16.. => v::store(places.as_mut_ptr().cast(), results),
                            few => v::store_within(v::first(few), places.as_mut_ptr().cast(), results),
                        }
                    }
                }
            }

            impl Stored for Bf16 {
                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn store(results: v::Floats, places: &mut [MaybeUninit<Self>], _: bool) {
                    // A panel's rows are no whole lines.
                    let halves = v::round_to_bf16(results);
                    // SAFETY: as many places are written as there are.
                    unsafe {
                        match places.len() {
                            16.. => v::store_bf16(places.as_mut_ptr().cast(), halves),
                            few => v::store_bf16_within(v::first(few), places.as_mut_ptr().cast(), halves),
                        }
                    }
                }
            }

            /// The results of rows from `first` on, from their sums.
            ///
            /// # Safety
            /// The CPU has the features; the rows are the product's, `column` is a panel's first, and nobody else touches these
            /// results.
            #[target_feature(enable = $features)]
            #[inline]
            pub(in super::super) unsafe fn finish_rows(
                sums: &[[u32; WIDTH]],
                first: usize,
                column: usize,
                columns: usize,
                epilogue: &Epilogue<'_>,
                output: Output,
            ) {
                let width = WIDTH.min(columns - column);
                for (row, sums) in sums.iter().enumerate() {
                    let row = first + row;
                    let start = row * columns + column;
                    // SAFETY: the caller's promises.
                    unsafe {
                        match epilogue.before {
                            Some(Output::F32(place)) => keep(epilogue, sums, column, place.slice(start, width)),
                            Some(Output::Bf16(place)) => keep(epilogue, sums, column, place.slice(start, width)),
                            None => {}
                        }
                        match output {
                            Output::F32(place) => finish(epilogue, sums, row, column, place.slice(start, width)),
                            Output::Bf16(place) => finish(epilogue, sums, row, column, place.slice(start, width)),
                        }
                    }
                }
            }

            /// The results of one row of a tile whose first column is `column`, into their places: one panel's, or what there is of
            /// it.
            ///
            /// # Safety
            /// The CPU has the features; `row` is one of the product's, `column` a panel's first; `epilogue` fits the product.
            #[target_feature(enable = $features)]
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
                        let bits = v::load_integers(sums.as_ptr().cast());
                        let mut results = match &epilogue.dequantize {
                            None => v::as_floats(bits),
                            Some(dequantize) => real(dequantize, bits, row, column),
                        };
                        if let Some(bias) = epilogue.bias.get(column..column + 16) {
                            results = v::add(results, v::load(bias.as_ptr()));
                        }
                        if epilogue.activation == Activation::GeluTanh {
                            results = gelu_tanh(results);
                        }
                        E::store(results, places, epilogue.past_caches);
                    }
                }
            }

            /// What [`finish`] makes of one row of sums of real numbers if no activation follows.
            ///
            /// # Safety
            /// As [`finish`].
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn keep<E: Stored>(
                epilogue: &Epilogue<'_>,
                sums: &[u32; WIDTH],
                column: usize,
                places: &mut [MaybeUninit<E>],
            ) {
                let plain = Epilogue { activation: Activation::Identity, ..*epilogue };
                // SAFETY: the caller's promise; no row's step is asked for.
                unsafe { finish(&plain, sums, 0, column, places) }
            }

            /// (sum − zero · total) · step_row · step_column.
            #[target_feature(enable = $features)]
            #[inline]
            fn real(dequantize: &Dequantize<'_>, sums: v::Integers, row: usize, column: usize) -> v::Floats {
                let RowScale { step, zero } = dequantize.rows[row];
                let (steps, totals) = (&dequantize.columns[column..column + 16], &dequantize.sums[column..column + 16]);
                // SAFETY: both have sixteen values.
                let (steps, totals) = unsafe { (v::load(steps.as_ptr()), v::load_integers(totals.as_ptr())) };
                let sums = v::sub_integers(sums, v::mul_integers(v::splat_integer(zero), totals));
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

epilogue!(avx512, "avx512f,avx512bw,avx512dq,avx512vl");
epilogue!(avx2, "avx2,fma");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    fn exact_gelu(x: f64) -> f64 {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
    }

    /// A kernel's `finish`.
    type Finish<E> = unsafe fn(&Epilogue<'_>, &[u32; WIDTH], usize, usize, &mut [MaybeUninit<E>]);

    /// # Safety
    /// The CPU has the kernels' instructions.
    unsafe fn check(finish_wide: Finish<f32>, finish_narrow: Finish<Bf16>) {
        let special = [0.0, -0.0, 1e-30, -1e-30, 40.0, -40.0, 3e38, f32::INFINITY, f32::NAN];
        let values: Vec<f32> = (-640..640).map(|i| i as f32 * 0.0137).chain(special).collect();
        for activation in [Activation::Identity, Activation::GeluTanh] {
            let epilogue = Epilogue { activation, ..Epilogue::plain() };
            for values in values.chunks(WIDTH) {
                let mut sums = [0; WIDTH];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = value.to_bits();
                }
                let mut wide = vec![MaybeUninit::new(7.0_f32); values.len()];
                let mut narrow = vec![MaybeUninit::new(Bf16(7)); values.len()];
                // SAFETY: the caller's promise; nothing goes by columns. Every element was set above.
                let (wide, narrow) = unsafe {
                    finish_wide(&epilogue, &sums, 0, 0, &mut wide);
                    finish_narrow(&epilogue, &sums, 0, 0, &mut narrow);
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
        unsafe {
            if cpu.avx512 {
                check(avx512::finish, avx512::finish);
            }
            if cpu.avx2 {
                check(avx2::finish, avx2::finish);
            }
        }
        if !cpu.avx2 {
            eprintln!("SKIPPED: no AVX2");
        }
    }
}
