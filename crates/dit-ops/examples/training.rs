//! Linears of a training step of DiT-S/2 with 16 samples, forward and backward: the kernels of this crate and libtorch's operators, in turns.
//!
//! ```sh
//! cargo run --release -p dit-ops --example training
//! ```

use std::time::Instant;

use dit_ops::{Kernels, Linear};
use tch::{Device, Kind, Tensor};

fn main() {
    dit_ops::keep_freed_memory();
    let kinds = [("fp32", Kind::Float), ("bf16", Kind::BFloat16)];
    let asked = std::env::args().nth(1);
    println!("GFLOP/s of forward, gradient of the input, gradients of the parameters: ours | libtorch's");
    for (name, kind) in kinds.into_iter().filter(|(name, _)| asked.as_deref().is_none_or(|asked| asked == *name)) {
        for (inputs, outputs) in [(384, 1152), (384, 384), (384, 1536), (1536, 384)] {
            let options = (kind, Device::Cpu);
            let x = Tensor::randn([16, 256, inputs], options);
            let weight = Tensor::randn([outputs, inputs], options) / 20.0;
            let bias = Tensor::randn([outputs], options);
            let gradient = Tensor::randn([16, 256, outputs], options);
            let flop = (2 * 16 * 256 * inputs * outputs) as f64;
            let mut best = [[f64::INFINITY; 3]; 2];
            for _ in 0..15 {
                for (best, kernels) in best.iter_mut().zip([Kernels::Differentiable, Kernels::Plain]) {
                    let mut seconds = [0.0; 3];
                    for (place, (of_x, of_parameters)) in [(true, false), (false, true)].into_iter().enumerate() {
                        let x = x.detach().set_requires_grad(of_x);
                        let weight = weight.detach().set_requires_grad(of_parameters);
                        let bias = bias.detach().set_requires_grad(of_parameters);
                        let mut linear = Linear::new(weight, Some(bias));
                        linear.optimize(kernels);
                        let start = Instant::now();
                        let y = linear.forward(&x);
                        seconds[0] = start.elapsed().as_secs_f64();
                        let start = Instant::now();
                        let loss = (&y * &gradient).sum(Kind::Float);
                        let around = start.elapsed().as_secs_f64();
                        let start = Instant::now();
                        loss.backward();
                        seconds[1 + place] = (start.elapsed().as_secs_f64() - around).max(1e-9);
                    }
                    for (best, seconds) in best.iter_mut().zip(seconds) {
                        *best = best.min(seconds);
                    }
                }
            }
            let rates = best.map(|best| best.map(|seconds| format!("{:4.0}", flop / seconds / 1e9)).join(" "));
            println!("{name} {inputs:>4} → {outputs:<4}  {}", rates.join("  |  "));
        }
    }
}
