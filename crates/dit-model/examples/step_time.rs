//! Seconds of one guided step of DiT-XL/2 with random weights, for each kind and choice of kernels, interleaved:
//! `cargo run --release -p dit-model --example step_time -- [MODEL] [SAMPLES] [ROUNDS] [LATENT]`.
//!
//! A guided step is one forward pass of two rows a picture. The defaults are DiT-XL/2, 1 picture, 7 rounds, 32×32 latents.

use std::{str::FromStr, time::Instant};

use dit_model::{Dit, DitConfig, Initialization, Kernels, LatentSize};
use tch::{Device, Kind, Tensor, nn::VarStore};

const PATHS: [(&str, Kind, Kernels); 5] = [
    ("fp32 plain", Kind::Float, Kernels::Plain),
    ("fp32 fused", Kind::Float, Kernels::Fused),
    ("bf16 plain", Kind::BFloat16, Kernels::Plain),
    ("bf16 fused", Kind::BFloat16, Kernels::Fused),
    ("int8", Kind::BFloat16, Kernels::Int8),
];

fn argument<T: FromStr>(place: usize, default: T) -> T {
    std::env::args().nth(place).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let side = argument(4, 32);
    let config = argument(1, "DiT-XL/2".to_owned())
        .parse::<DitConfig>()?
        .with(|spec| spec.latent = LatentSize { height: side, width: side })?;
    let rows = 2 * argument(2, 1_i64);
    let rounds = argument(3, 7);
    let only = argument(5, String::new());
    let side = side as i64;
    let x = Tensor::randn([rows, config.in_channels as i64, side, side], (Kind::Float, Device::Cpu));
    let t = Tensor::full([rows], 500, (Kind::Int64, Device::Cpu));
    let labels = Tensor::arange(rows, (Kind::Int64, Device::Cpu)).remainder(2) * 1000;
    let gigaflop = 2.0 * config.macs() as f64 * rows as f64 / 1e9;
    println!("{config}, {rows} rows, {gigaflop:.0} GFLOP, {} threads", tch::get_num_threads());

    let _no_grad = tch::no_grad_guard();
    let mut models: Vec<(&str, Dit, Vec<f64>)> = Vec::new();
    for (name, kind, kernels) in PATHS {
        if name.contains(&only) {
            models.push((name, random(&config, kind, kernels), Vec::new()));
        }
    }
    for round in 0..=rounds {
        for (_, dit, seconds) in &mut models {
            let start = Instant::now();
            let output = dit.forward(&x, &t, &labels);
            let sum = output.to_kind(Kind::Float).sum(Kind::Float).double_value(&[]);
            assert!(sum.is_finite());
            // The first round warms up.
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    for (name, _, seconds) in &mut models {
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        let (least, most) = (seconds[0], seconds[seconds.len() - 1]);
        println!("{name:12} {median:.3} s ({least:.3} to {most:.3}), {:.0} GFLOP/s", gigaflop / median);
    }
    Ok(())
}

/// Every weight is random: zeros would be faster on some machines, and gates of zero would hide mistakes.
fn random(config: &DitConfig, kind: Kind, kernels: Kernels) -> Dit {
    let mut store = VarStore::new(Device::Cpu);
    store.set_kind(kind);
    let mut dit = Dit::new(&store.root(), config, Initialization::Empty);
    for (name, variable) in store.variables() {
        if name != "pos_embed" {
            variable.shallow_clone().copy_(&(Tensor::randn_like(&variable) * 0.02));
        }
    }
    store.freeze();
    drop(store);
    dit.optimize(kernels);
    dit
}
