use std::{
    f32::consts::{FRAC_2_SQRT_PI, LN_2, LOG2_E, SQRT_2},
    mem::MaybeUninit,
};

use tch::Tensor;

use crate::{
    element::{Element, allocate, values},
    parallel::{self, Destination},
    simd::multiversion,
};

/// Elements that a task takes at once.
const ELEMENTS_OF_A_TASK: usize = 1 << 14;

/// The gradient of x from that of GELU(x), in its tanh form.
///
/// # Shapes
/// Both contiguous, of one shape, which is the result's.
pub(super) fn pull_back_gelu<E: Element>(x: &Tensor, gradient: &Tensor) -> Tensor {
    let (result, start) = allocate::<E>(&gradient.size());
    let destination = Destination::new(start);
    let (x, gradient) = (values::<E>(x), values::<E>(gradient));
    assert_eq!(x.len(), gradient.len());
    parallel::for_each(x.len().div_ceil(ELEMENTS_OF_A_TASK), &|task| {
        let own = task * ELEMENTS_OF_A_TASK..x.len().min((task + 1) * ELEMENTS_OF_A_TASK);
        // SAFETY: each stretch is one task's own; the tensor outlives the tasks.
        let place = unsafe { destination.slice(own.start, own.len()) };
        pull_back(&x[own.clone()], &gradient[own], place);
    });
    result
}

multiversion! {
    fn pull_back<E: Element>(x: &[E], gradient: &[E], result: &mut [MaybeUninit<E>]) {
        for ((result, x), gradient) in result.iter_mut().zip(x).zip(gradient) {
            result.write(E::from_f32(gradient.to_f32() * derivative(x.to_f32())));
        }
    }
}

/// σ(u) + x·σ(u)·(1 − σ(u))·u′ with u = 2√(2/π)·(x + 0.044715·x³): the derivative of x·σ(u) (Hendrycks & Gimpel 2016). Written
/// without branches, so that it vectorises.
#[inline(always)]
fn derivative(x: f32) -> f32 {
    const FACTOR: f32 = FRAC_2_SQRT_PI * SQRT_2;
    const CUBIC: f32 = 0.044_715;
    let square = x * x;
    // σ = 1 / (1 + 2ᵗ); beyond ±126 it is 0 or 1 to every digit.
    let t = (x * (square * (-FACTOR * LOG2_E * CUBIC) - FACTOR * LOG2_E)).clamp(-126.0, 126.0);
    let power = exp2(t);
    let sigmoid = 1.0 / (1.0 + power);
    let slope = FACTOR + square * (3.0 * CUBIC * FACTOR);
    // 1 − σ, with all of its digits, is σ·2ᵗ.
    sigmoid + sigmoid * (sigmoid * power) * (x * slope)
}

/// 2ˣ for |x| ≤ 126, to a few units in the last place; NaN of NaN.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    /// Added and taken off again, it leaves the nearest whole number.
    const ROUNDING: f32 = 12_582_912.0;
    let shifted = x + ROUNDING;
    let whole = shifted - ROUNDING;
    let r = (x - whole) * LN_2;
    // Taylor's series of eʳ to the sixth power: its rest is below 1.3e-7 where |r| ≤ 0.347.
    let mut series = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * r + coefficient;
    }
    // The whole number's bits lie lowest in the shifted one.
    let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    series * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivative_is_that_of_gelu() {
        let exact = |x: f64| {
            let factor = (2.0 / std::f64::consts::PI).sqrt();
            let tanh = (factor * (x + 0.044_715 * x.powi(3))).tanh();
            0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * factor * (1.0 + 3.0 * 0.044_715 * x * x)
        };
        for x in (-2000..2000).map(|i| i as f32 * 0.0071).chain([0.0, -0.0, 1e-30, 30.0, -30.0, 1e5, -1e5]) {
            let (found, expected) = (f64::from(derivative(x)), exact(f64::from(x)));
            assert!((found - expected).abs() < 1e-6, "{x}: {found}, {expected}");
        }
        assert!(derivative(f32::NAN).is_nan());
    }
}
