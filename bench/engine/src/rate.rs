//! The yardstick: what this libtorch's own Linear reaches on this machine, now.

use std::time::{Duration, Instant};

use tch::{Cuda, Device, Kind, Tensor};

/// GFLOP/s of `linear` at 512 × 1152 → 4608, one MLP layer of DiT-XL/2 at batch 2; the median call of about half a second. A GPU
/// takes a queue of them: one alone would tell how long a launch takes.
pub fn linear(device: Device, kind: Kind) -> f64 {
    let tensor = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device)).to_kind(kind);
    let (x, weight, bias) = (tensor(&[512, 1152]), tensor(&[4608, 1152]), tensor(&[4608]));
    let at_once = if device == Device::Cpu { 1 } else { 50 };
    let mut times = Vec::new();
    let started = Instant::now();
    while times.len() < 5 || started.elapsed() < Duration::from_millis(400) {
        let start = Instant::now();
        for _ in 0..at_once {
            let _y = x.linear(&weight, Some(&bias));
        }
        synchronize(device);
        times.push(start.elapsed().as_secs_f64() / f64::from(at_once));
    }
    times.sort_by(f64::total_cmp);
    2.0 * 512.0 * 1152.0 * 4608.0 / times[times.len() / 2] / 1e9
}

/// Waits until the device has computed what it was given.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}
