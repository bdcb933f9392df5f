//! How the error of each solver falls with the number of steps, in f64, where the probability flow is known: on a Gaussian and on a
//! mixture of two, whose flow is not linear; the states at a noise level σ > 0, before the final step, which is exact for every
//! solver.

use std::ops::ControlFlow;

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

const MEAN: f64 = 0.7;
const VARIANCE: f64 = 0.25;
/// λ from where walks start to where they are compared.
const SPAN: [f64; 2] = [-4.9, 3.0];
const EPS: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };

/// A schedule so long that its timesteps meet any noise level.
fn training() -> NoiseSchedule {
    NoiseSchedule::linear(200_000).unwrap()
}

/// `intervals` from one end of the span to the other, evenly in λ.
fn even_in_lambda(training: &NoiseSchedule, intervals: usize) -> SampleSchedule {
    let [noisy, clean] = SPAN;
    let timestep = |i: usize| {
        let lambda = clean + (noisy - clean) * i as f64 / intervals as f64;
        training.nearest((-lambda).exp())
    };
    training.keeping(&(0..=intervals).map(timestep).collect::<Vec<_>>()).unwrap()
}

/// Standard deviation of x_t.
fn spread(step: &Step) -> f64 {
    (step.alpha_bar() * VARIANCE + 1.0 - step.alpha_bar()).sqrt()
}

/// The state before the final step of a walk from `start`, on the exact noise estimate `eps` of a state at an ᾱ.
fn walk_on(
    eps: impl Fn(&Tensor, f64) -> Tensor,
    training: &NoiseSchedule,
    schedule: &SampleSchedule,
    solver: &mut dyn Solver,
    noise: BatchNoise<'_>,
    start: &Tensor,
) -> Tensor {
    let denoiser = from_fn(|x, t| Ok(eps(x, training.alpha_bar(t).ok_or("no such timestep")?)));
    let sampler = Sampler { schedule, parameterization: EPS, clip: ClipX0::No };
    let mut compared = start.shallow_clone();
    let mut observe = |progress: Progress<'_>| {
        if progress.done + 1 == progress.total {
            compared = progress.x.copy();
        }
        ControlFlow::Continue(())
    };
    let _ = sampler.run(&denoiser, solver, noise, start, &mut observe).unwrap();
    compared
}

/// [`walk_on`] the Gaussian.
fn walk(
    training: &NoiseSchedule,
    schedule: &SampleSchedule,
    solver: &mut dyn Solver,
    noise: BatchNoise<'_>,
    start: &Tensor,
) -> Tensor {
    let eps = |x: &Tensor, alpha_bar: f64| {
        let variance = alpha_bar * VARIANCE + 1.0 - alpha_bar;
        (x - alpha_bar.sqrt() * MEAN) * ((1.0 - alpha_bar).sqrt() / variance)
    };
    walk_on(eps, training, schedule, solver, noise, start)
}

/// The slope of log error over log steps, from 80 steps to 320.
fn slope(error: impl Fn(usize) -> f64) -> f64 {
    (error(80) / error(320)).log2() / 2.0
}

#[track_caller]
fn check(name: &str, (lowest, highest): (f64, f64), slope: f64) {
    let allowed = lowest - 0.2..highest + 0.45;
    assert!(allowed.contains(&slope), "{name}: slope {slope:.2}, expected {lowest} to {highest}");
}

/// A solver, its name, and the lowest and highest order that it may show.
type Case = (&'static str, (f64, f64), Box<dyn Solver>);

/// One order.
const fn of(order: f64) -> (f64, f64) {
    (order, order)
}

/// The solvers that add no noise, with the orders that theory gives them.
fn deterministic() -> [Case; 7] {
    [
        ("ddim, which is euler", of(1.0), Box::new(Ddim::deterministic())),
        ("heun", of(2.0), Box::new(Heun)),
        ("dpm++ 2m", of(2.0), Box::new(DpmPlusPlus::second_order())),
        ("dpm++ 3m as published", of(2.0), Box::new(DpmPlusPlus::third_order())),
        ("dpm++ 3m exact", of(3.0), Box::new(DpmPlusPlus::third_order_exact())),
        ("unipc 2", of(3.0), Box::new(UniPc::second_order())),
        // Of order 4 in the middle of a walk, of a lower one in its last steps: which of the errors is seen depends on the flow.
        ("unipc 3", (3.0, 4.0), Box::new(UniPc::third_order())),
    ]
}

#[test]
fn deterministic_solvers_converge_with_their_order() {
    let training = training();
    let z = Tensor::from_slice(&[-1.5, -0.4, 0.6, 1.3]).view([1, 1, 2, 2]); // f64
    for (name, order, solver) in deterministic() {
        let solver = std::cell::RefCell::new(solver);
        let error = |intervals| {
            let schedule = even_in_lambda(&training, intervals);
            // The flow keeps every quantile: x = √ᾱ·MEAN + z·spread at all times.
            let exact = |step: &Step| &z * spread(step) + step.signal() * MEAN;
            let (first, last) = (schedule.steps().last().unwrap(), &schedule.steps()[0]);
            let source = SeededNoise::new(0);
            let noise = BatchNoise::new(&source, &[0]);
            let found = walk(&training, &schedule, &mut **solver.borrow_mut(), noise, &exact(first));
            (found - exact(last)).abs().max().double_value(&[])
        };
        check(name, order, slope(error));
    }
}

/// Two Gaussians of variance [`VARIANCE`], alike in weight.
const MODES: [f64; 2] = [-1.1, 0.9];

/// E[ε | x] on the mixture.
fn mixture_eps(x: &Tensor, alpha_bar: f64) -> Tensor {
    let (signal, variance) = (alpha_bar.sqrt(), alpha_bar * VARIANCE + 1.0 - alpha_bar);
    let log_density = |mode: f64| (x - signal * mode).square() * (-0.5 / variance);
    let of_second = (log_density(MODES[1]) - log_density(MODES[0])).sigmoid();
    let mode = of_second * (MODES[1] - MODES[0]) + MODES[0];
    (x - signal * mode) * ((1.0 - alpha_bar).sqrt() / variance)
}

/// Where the mixture's distribution function at an ᾱ is `quantile`, by halving an interval that holds it.
fn mixture_quantile(quantile: f64, step: &Step) -> f64 {
    let below = |x: f64| {
        let each = MODES.map(|mode| 0.5 * libm::erfc(-(x - step.signal() * mode) / (spread(step) * 2.0_f64.sqrt())));
        (each[0] + each[1]) / 2.0
    };
    let (mut low, mut high) = (-20.0, 20.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if below(middle) < quantile { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[test]
fn deterministic_solvers_converge_with_their_order_on_a_mixture() {
    let training = training();
    for (name, order, solver) in deterministic() {
        let solver = std::cell::RefCell::new(solver);
        let error = |intervals| {
            let schedule = even_in_lambda(&training, intervals);
            // In one dimension the flow keeps every quantile, whatever the distribution.
            let exact = |step: &Step| {
                let x = [0.1, 0.35, 0.6, 0.85].map(|quantile| mixture_quantile(quantile, step));
                Tensor::from_slice(&x).view([1, 1, 2, 2])
            };
            let (first, last) = (schedule.steps().last().unwrap(), &schedule.steps()[0]);
            let source = SeededNoise::new(0);
            let noise = BatchNoise::new(&source, &[0]);
            let found = walk_on(mixture_eps, &training, &schedule, &mut **solver.borrow_mut(), noise, &exact(first));
            (found - exact(last)).abs().max().double_value(&[])
        };
        check(name, order, slope(error));
    }
}

/// Unit noise for one moment only: image i + 2 at step i, image 1 at the start, image 0 never.
struct Impulses;

impl Noise for Impulses {
    fn draw(&self, images: &[u64], at: Draw, _: LatentShape) -> Result<Tensor> {
        let moment = match at {
            Draw::Initial => 1,
            Draw::Step(number) => u64::from(number) + 2,
        };
        let units: Vec<f32> = images.iter().map(|&image| if image == moment { 1.0 } else { 0.0 }).collect();
        Ok(Tensor::from_slice(&units).view([-1, 1, 1, 1]))
    }
}

#[test]
fn stochastic_solvers_converge_in_distribution() {
    // On a Gaussian every step is affine in the state and in its noise: image 0 gives the mean, and the squared responses to the
    // impulses add up to the variance, exactly.
    let training = training();
    let solvers: [Case; 3] = [
        ("dpm++ 2m sde", of(2.0), Box::new(SdeDpmPlusPlus::new())),
        ("euler ancestral", of(1.0), Box::new(EulerAncestral)),
        ("ddim, eta 1, which is ddpm", of(1.0), Box::new(Ddim::new(1.0).unwrap())),
    ];
    for (name, order, solver) in solvers {
        let solver = std::cell::RefCell::new(solver);
        let error = |intervals: usize| {
            let schedule = even_in_lambda(&training, intervals);
            let (first, last) = (schedule.steps().last().unwrap(), &schedule.steps()[0]);
            let images: Vec<u64> = (0..intervals as u64 + 2).collect();
            let noise = BatchNoise::new(&Impulses, &images);
            let shape = LatentShape { channels: 1, height: 1, width: 1 };
            let start = noise.initial(shape, Device::Cpu).unwrap().to_kind(Kind::Double);
            let start = start * spread(first) + first.signal() * MEAN;
            let found = walk(&training, &schedule, &mut **solver.borrow_mut(), noise, &start);
            let mean = found.double_value(&[0, 0, 0, 0]);
            let variance = (&found - mean).square().sum(Kind::Double).double_value(&[]);
            (mean - last.signal() * MEAN).abs() + (variance - spread(last).powi(2)).abs()
        };
        check(name, order, slope(error));
    }
}
