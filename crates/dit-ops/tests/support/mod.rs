//! Numbers to compute with, and how far results are off.

use tch::{Device, Kind, Tensor};

/// Normal numbers that depend on `seed` alone (libtorch's generator is global, and tests run side by side).
pub fn normal(shape: &[i64], seed: i64) -> Tensor {
    let n: i64 = shape.iter().product();
    let i = Tensor::arange(n, (Kind::Double, Device::Cpu)) + seed as f64 * 7919.0;
    let uniform = |factor: f64| -> Tensor {
        let x = (&i * factor).sin() * 43_758.545_3;
        (&x - x.floor()).clamp(1e-6, 1.0)
    };
    let radius = (uniform(12.9898).log() * -2.0).sqrt();
    (radius * (uniform(78.233) * std::f64::consts::TAU).cos()).view(shape)
}

/// The largest difference, as a share of the expected values' root mean square.
pub fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let found = found.to_kind(Kind::Double);
    assert!(found.isfinite().all().int64_value(&[]) == 1);
    let scale = expected.square().mean(Kind::Double).sqrt().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / scale.max(1e-12)
}

/// ‖found − expected‖ / ‖expected‖.
#[allow(dead_code, reason = "each test program takes what it needs")]
pub fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    let apart = (found.to_kind(Kind::Double) - expected).norm().double_value(&[]);
    apart / expected.norm().double_value(&[]).max(1e-12)
}

pub fn tolerance(kind: Kind) -> f64 {
    match kind {
        Kind::Float => 1e-5,
        // Results up to five times the root mean square, of eight bits.
        _ => 2.5e-2,
    }
}

pub const KINDS: [Kind; 2] = [Kind::Float, Kind::BFloat16];
