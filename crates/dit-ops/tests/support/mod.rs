//! Numbers to compute with, and how far results are off.

pub mod again;

use again::this_program;
use dit_ops::Cpu;
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

/// Runs all tests of this program again without AMX, AVX-512 BF16, AVX-512 and NEON, where they are there, but the one that calls this, which is named
/// `without_wider_instructions_too`.
#[allow(dead_code, reason = "each test program takes what it needs")]
pub fn again_without_wider_instructions() {
    let cpu = Cpu::detect();
    for (variable, there) in [
        ("DIT_NO_AMX", cpu.amx),
        ("DIT_NO_AVX512_BF16", cpu.avx512_bf16_products),
        ("DIT_NO_AVX512", cpu.avx512),
        ("DIT_NO_NEON", cpu.neon),
    ] {
        if !there {
            eprintln!("SKIPPED: nothing for {variable} to do without, or this is the run without");
            continue;
        }
        let mut again = this_program();
        let output = again.args(["--skip", "without_wider_instructions_too"]).env(variable, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("kernels_are_used_where_the_cpu_has_them ... ok"),
            "{variable}: {said}"
        );
    }
}
