//! What a training step of DiT-S/2 with 16 samples is made of, forward and backward: the kernels of this crate and libtorch's operators, in
//! turns.
//!
//! ```sh
//! cargo run --release -p dit-ops --example training [fp32|bf16]
//! ```

use std::time::Instant;

use dit_ops::{Kernels, Linear, keep_freed_memory};
use tch::{Device, Kind, Tensor};

const SAMPLES: i64 = 16;
const TOKENS: i64 = 256;
const WIDTH: i64 = 384;
const HEADS: i64 = 6;
const ROUNDS: usize = 15;

fn main() {
    keep_freed_memory();
    let asked = std::env::args().nth(1);
    for (name, kind) in [("fp32", Kind::Float), ("bf16", Kind::BFloat16)] {
        if asked.as_deref().is_none_or(|asked| asked == name) {
            println!("{name:28} ours, ms: forward backward | libtorch's | times as fast (median)");
            linears(kind);
            between(kind);
        }
    }
}

fn linears(kind: Kind) {
    for (inputs, outputs, gelu) in
        [(WIDTH, 3 * WIDTH, false), (WIDTH, WIDTH, false), (WIDTH, 4 * WIDTH, true), (4 * WIDTH, WIDTH, false)]
    {
        let weight = leaf(&[outputs, inputs], kind, 0.05);
        let bias = leaf(&[outputs], kind, 1.0);
        let forms = [Kernels::Differentiable, Kernels::Plain].map(|kernels| {
            let mut linear = Linear::new(weight.shallow_clone(), Some(bias.shallow_clone()));
            linear.optimize(kernels);
            linear
        });
        let x = leaf(&[SAMPLES, TOKENS, inputs], kind, 1.0);
        let name = format!("{inputs} → {outputs}{}", if gelu { ", GELU" } else { "" });
        in_turns(&name, |place| if gelu { forms[place].forward_gelu(&x) } else { forms[place].forward(&x) });
    }
}

fn between(kind: Kind) {
    let kernels = [Kernels::Differentiable, Kernels::Plain];
    let qkv = leaf(&[SAMPLES, TOKENS, 3 * WIDTH], kind, 1.0);
    in_turns("attention", |place| kernels[place].self_attention(&qkv, HEADS));
    let [x, y] = [(); 2].map(|()| leaf(&[SAMPLES, TOKENS, WIDTH], kind, 1.0));
    let [a, b] = [(); 2].map(|()| leaf(&[SAMPLES, 1, WIDTH], kind, 1.0));
    in_turns("LayerNorm + modulate", |place| kernels[place].layer_norm_modulate(&x, &a, &b, 1e-6));
    in_turns("gate", |place| kernels[place].add_gated(&x, &a, &y));
}

fn leaf(shape: &[i64], kind: Kind, scale: f64) -> Tensor {
    (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * scale).to_kind(kind).set_requires_grad(true)
}

/// Forward and backward of `run` with 0 and with 1.
fn in_turns(name: &str, run: impl Fn(usize) -> Tensor) {
    let gradient = run(0).detach().randn_like();
    let mut milliseconds = [(); 2].map(|()| [(); 2].map(|()| Vec::new()));
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let mut whole = [0.0; 2];
        for (place, milliseconds) in milliseconds.iter_mut().enumerate() {
            let start = Instant::now();
            let result = run(place);
            let forward = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let loss = (&result * &gradient).sum(Kind::Float);
            let around = start.elapsed().as_secs_f64();
            let start = Instant::now();
            loss.backward();
            // The gradient of the product takes about as long as the product.
            let backward = start.elapsed().as_secs_f64() - around;
            whole[place] = forward + backward;
            for (all, seconds) in milliseconds.iter_mut().zip([forward, backward]) {
                all.push(1e3 * seconds);
            }
        }
        ratios.push(whole[1] / whole[0]);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [ours, theirs] = milliseconds.map(|two| two.map(|mut all| format!("{:6.1}", median(&mut all))).join(" "));
    println!("{name:28} {ours} | {theirs} | {:.2}", median(&mut ratios));
}
