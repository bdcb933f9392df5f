//! How close each solver and spacing comes to the probability flow's end in few steps, on a mixture of Gaussians whose score is
//! known: root mean square distance to a reference of 1000 steps of Heun's method.
//!
//! `cargo run --release -p dit-diffusion --example solvers`

use std::{cell::Cell, ops::ControlFlow};

use dit_diffusion::{
    BatchNoise, ClipX0, Ddim, Denoiser, DpmPlusPlus, Error, Heun, LatentShape, MeanTarget, NoiseSchedule,
    Parameterization, Sampler, SeededNoise, Solver, UniPc, Variance, from_fn,
};
use tch::{Device, Kind, Tensor};

const IMAGES: u64 = 40; // of 4×8×8 points each
/// Half of the data around each, with this variance.
const MODES: [f64; 2] = [-1.0, 0.6];
const VARIANCE: f64 = 0.04;
const CALLS: [usize; 4] = [10, 20, 30, 50];
const SPACINGS: [&str; 4] = ["", "trailing", "karras", "lambda"];

fn main() -> Result<(), Error> {
    let training = NoiseSchedule::linear(1000)?;
    let reference = walk(&training, "1000", &mut Heun)?.0;
    println!("calls of the network            {}", CALLS.map(|calls| format!("{calls:>9}")).concat());
    type Make = fn() -> Box<dyn Solver>;
    let solvers: [(&str, usize, Make); 7] = [
        ("DDIM (Euler)", 1, || Box::new(Ddim::deterministic())),
        ("Heun", 2, || Box::new(Heun)),
        ("DPM-Solver++ 2M", 1, || Box::new(DpmPlusPlus::second_order())),
        ("DPM-Solver++ 3M, published", 1, || Box::new(DpmPlusPlus::third_order())),
        ("DPM-Solver++ 3M, exact", 1, || Box::new(DpmPlusPlus::third_order_exact())),
        ("UniPC-2", 1, || Box::new(UniPc::second_order())),
        ("UniPC-3", 1, || Box::new(UniPc::third_order())),
    ];
    for (name, calls_a_step, make) in solvers {
        for spacing in SPACINGS {
            let mut row = String::new();
            for calls in CALLS {
                let (x, made) = walk(&training, &format!("{spacing}{}", calls / calls_a_step), &mut *make())?;
                let error = (x - &reference).square().mean(Kind::Double).sqrt().double_value(&[]);
                row += &format!("{error:9.5}");
                assert!(made <= calls, "{made} calls");
            }
            let spacing = if spacing.is_empty() { "even" } else { spacing };
            println!("{name:26} {spacing:>8}{row}");
        }
    }
    Ok(())
}

/// Where a walk ends, and how often it asked.
fn walk(training: &NoiseSchedule, spacing: &str, solver: &mut dyn Solver) -> Result<(Tensor, usize), Error> {
    let schedule = training.respaced(&spacing.parse()?)?;
    let images: Vec<u64> = (0..IMAGES).collect();
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &images);
    let start = noise.initial(LatentShape { channels: 4, height: 8, width: 8 }, Device::Cpu)?;
    let parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };
    let sampler = Sampler { schedule: &schedule, parameterization, clip: ClipX0::No };
    let calls = Cell::new(0);
    let denoiser = counted(training, &calls);
    let x = sampler.run(&denoiser, solver, noise, &start.to_kind(Kind::Double), &mut |_| ControlFlow::Continue(()))?;
    Ok((x, calls.get()))
}

/// E[ε | x_t] of the mixture: each mode's own, weighed by how likely it is.
fn counted(training: &NoiseSchedule, calls: &Cell<usize>) -> impl Denoiser {
    from_fn(move |x, t| {
        calls.set(calls.get() + 1);
        let alpha_bar = training.alpha_bar(t).ok_or("no such timestep")?;
        let (signal, variance) = (alpha_bar.sqrt(), alpha_bar * VARIANCE + 1.0 - alpha_bar);
        let [low, high] = MODES.map(|mode| (x - signal * mode).square() * (-0.5 / variance));
        let mode = (high - low).sigmoid() * (MODES[1] - MODES[0]) + MODES[0];
        Ok((x - mode * signal) * ((1.0 - alpha_bar).sqrt() / variance))
    })
}
