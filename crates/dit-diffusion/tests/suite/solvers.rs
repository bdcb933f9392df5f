//! Whole trajectories against diffusers' schedulers, on a canned denoiser and the same noise.

use std::ops::ControlFlow;

use dit_diffusion::*;
use tch::{Kind, Tensor};

use crate::fixtures::{Fixture, relative};

/// Over the whole trajectory. Measured: 2.4e-7 at most; diffusers keeps its levels and states in fp32.
const TOLERANCE: f64 = 1e-5;

#[track_caller]
fn solver(name: &str) -> Box<dyn Solver> {
    match name {
        "dpmpp-2m" => Box::new(DpmPlusPlus::second_order()),
        "dpmpp-3m" => Box::new(DpmPlusPlus::third_order()),
        "dpmpp-2m-sde" => Box::new(SdeDpmPlusPlus::new()),
        "unipc-2" => Box::new(UniPc::second_order()),
        "unipc-3" => Box::new(UniPc::third_order()),
        "euler" | "ddim" => Box::new(Ddim::deterministic()),
        "ddim-0.5" => Box::new(Ddim::new(0.5).unwrap()),
        "heun" => Box::new(Heun),
        "euler-ancestral" => Box::new(EulerAncestral),
        other => panic!("{other} has no solver"),
    }
}

fn trajectory(spacing: &str, solver: &mut dyn Solver, fixture: &Fixture) -> Tensor {
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&spacing.parse().unwrap()).unwrap();
    let parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };
    let sampler = Sampler { schedule: &schedule, parameterization, clip: ClipX0::No };
    let (z, steps) = (fixture.tensor("z"), fixture.tensor("steps"));
    let steps = steps.narrow(0, 0, schedule.num_steps() as i64);
    let source = ReplayedNoise::new(&z).unwrap().with_steps(&steps).unwrap();
    let denoiser = from_fn(|x, t| Ok((x * 0.7 + f64::from(t.0) / 999.0).tanh()));
    let mut states = Vec::new();
    let mut observe = |progress: Progress<'_>| {
        states.push(progress.x.copy());
        ControlFlow::Continue(())
    };
    let start = z.to_kind(Kind::Double);
    let _ = sampler.run(&denoiser, solver, BatchNoise::new(&source, &[0, 1]), &start, &mut observe).unwrap();
    Tensor::stack(&states, 0) // (S + 1, N, C, H, W)
}

#[test]
fn trajectories_are_those_of_diffusers() {
    let fixture = Fixture::open("solvers.safetensors");
    let cases: Vec<String> = fixture.names().into_iter().filter(|name| name.contains('/')).collect();
    assert_eq!(cases.len(), 82);
    let mut failures = Vec::new();
    let mut worst = 0.0_f64;
    for case in cases {
        let (name, spacing) = case.split_once('/').unwrap();
        let error = relative(&trajectory(spacing, &mut *solver(name), &fixture), &fixture.tensor(&case));
        worst = worst.max(error);
        if error.is_nan() || error > TOLERANCE {
            failures.push(format!("{case}: {error:.1e} apart"));
        }
    }
    assert!(failures.is_empty(), "{}\nworst {worst:.1e}", failures.join("\n"));
}
