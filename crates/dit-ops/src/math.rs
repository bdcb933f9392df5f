//! Elementary functions written so that a loop over them vectorises: no branches, no calls.

/// eˣ, within two units in the last place; 0 below −87, e⁸⁸ above 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n·ln 2 + r, |r| ≤ ln 2 / 2; adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first exact in the products with n.
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    // Taylor's series to the sixth power: its rest is below 1.3e-7 of the result where |r| ≤ 0.347.
    let mut p = 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { p * power }
}

/// GELU in its tanh form: x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³))), as x·σ(2u).
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const TWICE_SQRT_2_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
    let u = TWICE_SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-u))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_and_saturates() {
        let mut worst = 0.0_f64;
        for i in -8_600..8_800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-200.0), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(1e30).is_finite());
    }

    #[test]
    fn gelu_is_close() {
        for i in -1_000..1_000 {
            let x = i as f32 * 0.02;
            let wide = f64::from(x);
            let exact =
                0.5 * wide * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3))).tanh());
            let error = (f64::from(gelu_tanh(x)) - exact).abs();
            assert!(error < 1e-6 * wide.abs().max(1.0), "{x}: {error}");
        }
        assert!(gelu_tanh(f32::NAN).is_nan());
        assert_eq!(gelu_tanh(f32::INFINITY), f32::INFINITY);
    }
}
