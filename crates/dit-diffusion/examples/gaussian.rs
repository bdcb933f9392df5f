//! Samples a correlated Gaussian in two dimensions from its closed-form score: the whole loop, and no network.
//!
//! `cargo run -p dit-diffusion --example gaussian`

use std::{ops::ControlFlow, time::Instant};

use dit_diffusion::{
    BatchNoise, ClipX0, Ddim, Ddpm, Denoiser, Error, LatentShape, MeanTarget, NoiseSchedule, Parameterization, Sampler,
    SeededNoise, Solver, Variance, from_fn,
};
use tch::{Device, Kind, Tensor};

const IMAGES: u64 = 200; // of 8×8 points each
const MEAN: [f64; 2] = [0.5, -1.0];
const COVARIANCE: [[f64; 2]; 2] = [[0.6, 0.35], [0.35, 0.4]];

fn main() -> Result<(), Error> {
    let training = NoiseSchedule::linear(1000)?;
    let denoiser = closed_form(&training);
    println!("                        mean                variance            covariance");
    println!(
        "true                    {:+.3}, {:+.3}      {:.3}, {:.3}        {:.3}",
        MEAN[0], MEAN[1], COVARIANCE[0][0], COVARIANCE[1][1], COVARIANCE[0][1]
    );

    let images: Vec<u64> = (0..IMAGES).collect();
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &images);
    let start = noise.initial(LatentShape { channels: 2, height: 8, width: 8 }, Device::Cpu)?;

    let solvers: [(&str, &str, Box<dyn Solver>); 4] = [
        ("DDPM, 250 steps", "250", Box::new(Ddpm)),
        ("DDIM, 250 steps", "250", Box::new(Ddim::deterministic())),
        ("DDIM, 20 steps", "20", Box::new(Ddim::deterministic())),
        ("DDIM, 20 steps, η 1", "20", Box::new(Ddim::new(1.0)?)),
    ];
    for (name, spacing, mut solver) in solvers {
        let schedule = training.respaced(&spacing.parse()?)?;
        let parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };
        let sampler = Sampler { schedule: &schedule, parameterization, clip: ClipX0::No };
        let began = Instant::now();
        let x = sampler.run(&denoiser, &mut *solver, noise, &start, &mut |_| ControlFlow::Continue(()))?;
        report(name, &x, began);
    }
    Ok(())
}

/// E[ε | x_t] = √(1 − ᾱ) (ᾱΣ + (1 − ᾱ)I)⁻¹ (x_t − √ᾱ μ), with the inverse of a 2×2 matrix written out.
fn closed_form(training: &NoiseSchedule) -> impl Denoiser + use<> {
    let training = training.clone();
    from_fn(move |x, t| {
        let alpha_bar = training.alpha_bar(t).ok_or("no such timestep")?;
        let [[a, b], [_, d]] = COVARIANCE.map(|row| row.map(|entry| alpha_bar * entry));
        let (a, d) = (a + 1.0 - alpha_bar, d + 1.0 - alpha_bar);
        let scale = (1.0 - alpha_bar).sqrt() / (a * d - b * b);
        let first = x.narrow(1, 0, 1) - alpha_bar.sqrt() * MEAN[0];
        let second = x.narrow(1, 1, 1) - alpha_bar.sqrt() * MEAN[1];
        Ok(Tensor::cat(&[(&first * d - &second * b) * scale, (second * a - first * b) * scale], 1))
    })
}

fn report(name: &str, x: &Tensor, began: Instant) {
    let x = x.permute([0, 2, 3, 1]).reshape([-1, 2]).to_kind(Kind::Double); // (points, 2)
    let mean = x.mean_dim(0, true, Kind::Double);
    let centred = &x - &mean;
    let covariance = centred.transpose(0, 1).matmul(&centred) / (IMAGES * 64 - 1) as f64;
    let (m, c) = (|i| mean.double_value(&[0, i]), |i, j| covariance.double_value(&[i, j]));
    let (m0, m1, c00, c11, c01) = (m(0), m(1), c(0, 0), c(1, 1), c(0, 1));
    let seconds = began.elapsed().as_secs_f64();
    println!("{name:22}  {m0:+.3}, {m1:+.3}      {c00:.3}, {c11:.3}        {c01:.3}        {seconds:.1} s");
}
