//! Convolutions of Stable Diffusion's autoencoder, ours beside libtorch's, in turns.
//!
//! ```sh
//! cargo run --release -p dit-ops --example convolutions -- 5
//! ```

use std::{error::Error, hint::black_box, time::Instant};

use dit_ops::conv::{Convolution, Geometry, GroupNorm, Input, Products, Skip};
use tch::{Device, Kind, Tensor};

/// The median, in seconds.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64()
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse())?;
    let _no_grad = tch::no_grad_guard();
    println!(
        "3×3, GroupNorm and SiLU before it; GFLOP/s as a direct convolution counts them; libtorch: the convolution alone"
    );
    for (inputs, outputs, side) in [(128, 128, 256), (256, 256, 128), (512, 512, 64), (512, 512, 32)] {
        let flops = (2 * 9 * inputs * outputs * side * side) as f64;
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let weight = random(&[outputs, inputs, 3, 3]) * 0.02;
        let (bias, scale, shift) = (random(&[outputs]), random(&[inputs]), random(&[inputs]));
        let x = random(&[1, side, side, inputs]).permute([0, 3, 1, 2]);
        let norm = GroupNorm::new(32, &scale, &shift, 1e-6)?;
        for (products, kind) in [(Products::Fp32, Kind::Float), (Products::Bf16, Kind::BFloat16)] {
            if !Convolution::is_supported(products) {
                println!("{products:?}: no kernels for this CPU");
                continue;
            }
            let geometry = Geometry { stride: 1, before: 1, after: 1 };
            let ours = Convolution::new(&weight, &bias, geometry, products)?;
            let (x_kind, bias_kind) = (x.to_kind(kind), bias.to_kind(kind));
            let weight_kind = weight.to_kind(kind).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            let (mut norms, mut convolutions, mut torch) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..=rounds {
                norms.push(timed(|| norm.of(&x)));
                let map = norm.of(&x)?.then_silu();
                convolutions.push(timed(|| ours.forward(&x, Input::Normalized(&map), Skip::Nothing)));
                torch.push(timed(|| x_kind.conv2d(&weight_kind, Some(&bias_kind), [1, 1], [1, 1], [1, 1], 1)));
            }
            let (norms, ours, torch) = (median(norms), median(convolutions), median(torch));
            println!(
                "{inputs}→{outputs} at {side}²  {products:?}: {:.2} ms, {:.0} GFLOP/s (statistics {:.2} ms); libtorch {:.2} ms, {:.0} GFLOP/s",
                1e3 * ours,
                1e-9 * flops / ours,
                1e3 * norms,
                1e3 * torch,
                1e-9 * flops / torch
            );
        }
    }
    Ok(())
}
