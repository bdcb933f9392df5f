//! A distribution whose score is known: the loop must recover it.

use std::ops::ControlFlow;

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

use crate::fixtures::relative;

const MEAN: f64 = 0.7;
const VARIANCE: f64 = 0.25;

/// E[ε | x_t] for data N(MEAN, VARIANCE): x_t is then N(√ᾱ·MEAN, ᾱ·VARIANCE + 1 − ᾱ).
fn denoiser(schedule: &NoiseSchedule) -> impl Denoiser + use<> {
    let alpha_bars = schedule.alpha_bars().to_vec();
    from_fn(move |x, t| {
        let alpha_bar = alpha_bars.get(t.0 as usize).ok_or("no such timestep")?;
        let spread = alpha_bar * VARIANCE + 1.0 - alpha_bar;
        Ok((x - alpha_bar.sqrt() * MEAN) * ((1.0 - alpha_bar).sqrt() / spread))
    })
}

fn run(spacing: &str, solver: &mut dyn Solver, images: u64, start: Option<&Tensor>) -> Tensor {
    let training = NoiseSchedule::linear(1000).unwrap();
    let schedule = training.respaced(&spacing.parse().unwrap()).unwrap();
    let parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };
    let sampler = Sampler { schedule: &schedule, parameterization, clip: ClipX0::No };
    let images: Vec<u64> = (0..images).collect();
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &images);
    let shape = LatentShape { channels: 4, height: 8, width: 8 };
    let initial = noise.initial(shape, Device::Cpu).unwrap();
    let start = start.unwrap_or(&initial);
    sampler.run(&denoiser(&training), solver, noise, start, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[track_caller]
fn check(solver: &mut dyn Solver, tolerance: f64) {
    let x = run("100", solver, 400, None); // 102,400 numbers
    let mean = x.mean(Kind::Double).double_value(&[]);
    let variance = (&x - mean).square().mean(Kind::Double).double_value(&[]);
    assert!((mean - MEAN).abs() < tolerance, "mean {mean}");
    assert!((variance / VARIANCE - 1.0).abs() < tolerance, "variance {variance}");
}

#[test]
fn samplers_recover_a_gaussian() {
    // A hundred steps are a discretisation: exact up to a few per cent of the variance.
    check(&mut Ddpm, 0.06);
    check(&mut Ddim::deterministic(), 0.06);
    check(&mut Ddim::new(0.5).unwrap(), 0.06);
}

#[test]
fn inversion_converges_with_the_number_of_steps() {
    let data = run("100", &mut Ddim::deterministic(), 4, None);
    let error = |spacing| {
        let noise = run(spacing, &mut DdimReverse, 4, Some(&data));
        relative(&run(spacing, &mut Ddim::deterministic(), 4, Some(&noise)), &data)
    };
    let (coarse, fine) = (error("20"), error("200"));
    assert!(fine < 0.02 && fine < coarse / 5.0, "{coarse} at 20 steps, {fine} at 200");
}
