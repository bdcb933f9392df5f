//! What is refused, and that the message says what to do.

use std::ops::ControlFlow;

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

const SHAPE: LatentShape = LatentShape { channels: 4, height: 2, width: 2 };

#[track_caller]
fn refuses<T>(result: Result<T>, says: &str) {
    match result {
        Ok(_) => panic!("accepted; expected: {says}"),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(says), "`{message}` does not say `{says}`");
        }
    }
}

#[test]
fn spacings() {
    let schedule = NoiseSchedule::linear(1000).unwrap();
    for (text, says) in [
        ("0", "asks for zero steps"),
        ("10,0,20", "asks for zero steps"),
        ("ddim0", "asks for zero steps"),
        ("ddim64", "nearest are `ddim63` and `ddim67`"),
        ("ddim1", "nearest are `ddim2`"),
        ("ddim1001", "nearest are `ddim1000`"),
        ("1001", "asks for 1001 of 1000 training steps; ask for 1000 or fewer"),
        ("10,600", "asks for 600 steps from section 2 of 2, which spans 500"),
        ("", "is not a step spacing"),
        ("ten", "`ten` is not a step spacing"),
        ("10,,20", "is not a step spacing"),
        ("-5", "is not a step spacing"),
        ("+5", "is not a step spacing"),
        ("2.5", "is not a step spacing"),
        ("ddim", "is not a step spacing"),
        ("ddim 5x", "is not a step spacing"),
        ("karras", "is not a step spacing"),
        ("sgm20", "or `all`"),
        ("trailing0", "asks for zero steps"),
        ("lambda0", "asks for zero steps"),
        ("trailing1001", "`trailing1001` asks for 1001 of 1000 training steps"),
        ("karras1001", "ask for 1000 or fewer"),
        ("99999999999999999999999", "is not a step spacing"),
    ] {
        refuses(text.parse::<Spacing>().and_then(|spacing| spacing.timesteps(&schedule)), says);
    }
    refuses(Spacing::Sections(vec![]).timesteps(&schedule), "asks for zero steps");
    refuses(Spacing::Sections(vec![1; 1001]).timesteps(&schedule), "ask for 0 or fewer");
    refuses(Spacing::Karras(0).timesteps(&schedule), "asks for zero steps");
    let one = NoiseSchedule::from_betas(vec![0.3]).unwrap();
    refuses(Spacing::Ddim(2).timesteps(&one), "nearest are `all`");
}

#[test]
fn schedules() {
    refuses(NoiseSchedule::linear(0), "at least one step");
    refuses(NoiseSchedule::linear(20), "take 21 steps or more, or the cosine schedule");
    refuses(NoiseSchedule::linear(usize::MAX), "the most this crate tabulates");
    refuses(NoiseSchedule::cosine(0), "at least one step");
    refuses(NoiseSchedule::from_betas(vec![]), "at least one step");
    for bad in [0.0, -0.1, 1.0, 1.5, f64::NAN, f64::INFINITY, 1e-17] {
        refuses(NoiseSchedule::from_betas(vec![0.1, bad]), "beta[1] is");
    }
    refuses(NoiseSchedule::from_betas(vec![0.999; 200]), "underflows to zero");
    let schedule = NoiseSchedule::linear(1000).unwrap();
    refuses(schedule.keeping(&[]), "at least one step");
    for bad in [[3, 3], [5, 4], [0, 1000]] {
        refuses(schedule.keeping(&bad.map(Timestep)), "number 1 is");
    }
    assert_eq!(schedule.alpha_bar(Timestep(1000)), None);
    let steps = schedule.respaced(&Spacing::even(10)).unwrap();
    refuses(steps.step(StepIndex(10)).map(|_| ()), "step index 10 is outside the schedule's 10 steps (0 to 9)");
}

#[test]
fn ddim_eta() {
    for eta in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        refuses(Ddim::new(eta), "between 0 (deterministic) and 1");
    }
}

/// A walk over ten steps of images 7 and 8, with a denoiser of the test's own.
fn walk(
    denoiser: &dyn Denoiser,
    parameterization: Parameterization,
    source: &dyn Noise,
    start: &Tensor,
) -> Result<Tensor> {
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&Spacing::even(10)).unwrap();
    let sampler = Sampler { schedule: &schedule, parameterization, clip: ClipX0::No };
    let noise = BatchNoise::new(source, &[7, 8]);
    sampler.run(denoiser, &mut Ddpm, noise, start, &mut |_| ControlFlow::Continue(()))
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn networks_that_do_not_fit() {
    const FIXED: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedLarge };
    let source = SeededNoise::new(0);
    let start = zeros(&[2, 4, 2, 2]);
    for (output, parameterization, says) in [
        (zeros(&[2, 4, 2, 2]), Parameterization::DIT, "learned range variance reads 8 output channels; check whether"),
        (zeros(&[2, 8, 2, 2]), FIXED, "fixed large variance reads 4 output channels"),
        (zeros(&[1, 4, 2, 2]), FIXED, "the network gave shape [1, 4, 2, 2] for latents [2, 4, 2, 2]"),
        (zeros(&[2, 4, 2]), FIXED, "the network gave shape [2, 4, 2]"),
        (zeros(&[]), FIXED, "the network gave shape []"),
    ] {
        let denoiser = from_fn(move |_, _| Ok(output.shallow_clone()));
        refuses(walk(&denoiser, parameterization, &source, &start), says);
    }
    let failing = from_fn(|_, t| if t.0 > 500 { Ok(zeros(&[2, 4, 2, 2])) } else { Err("out of memory".into()) });
    let error = walk(&failing, FIXED, &source, &start).unwrap_err();
    assert_eq!(error.to_string(), "the denoiser failed at step 4 (timestep 444)");
    assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some("out of memory"));
}

#[test]
fn nan_is_reported_with_step_and_image() {
    const FIXED: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedLarge };
    let source = SeededNoise::new(0);
    let start = zeros(&[2, 4, 2, 2]);
    for bad in [f64::NAN, f64::INFINITY] {
        let denoiser = from_fn(move |x, t| {
            let output = x.zeros_like();
            if t.0 < 300 {
                let _ = output.get(1).get(0).get(0).get(0).fill_(bad);
            }
            Ok(output)
        });
        refuses(
            walk(&denoiser, FIXED, &source, &start),
            "the network's output holds NaN or infinity at step 2 (timestep 222), in images [8]",
        );
    }
    // Finite outputs that overflow when they are used.
    let denoiser = from_fn(|x, _| Ok(x.full_like(3e38)));
    refuses(walk(&denoiser, FIXED, &source, &start), "the latents holds NaN or infinity at step 9 (timestep 999)");
}

#[test]
fn batches_that_do_not_fit() {
    let denoiser = from_fn(|x, _| Ok(x.shallow_clone()));
    let source = SeededNoise::new(0);
    for start in [zeros(&[3, 4, 2, 2]), zeros(&[1, 4, 2, 2])] {
        refuses(walk(&denoiser, Parameterization::DIT, &source, &start), "2 samples, one for each image index");
    }
    for start in [zeros(&[2, 4, 2]), zeros(&[2, 4, 0, 2]), zeros(&[])] {
        refuses(walk(&denoiser, Parameterization::DIT, &source, &start), "expected (N, C, H, W), none of them zero");
    }
}

#[test]
fn recordings_that_do_not_fit() {
    let z = zeros(&[2, 4, 2, 2]);
    refuses(ReplayedNoise::new(&zeros(&[4, 2, 2])), "expected floating point (N, C, H, W)");
    refuses(ReplayedNoise::new(&zeros(&[0, 4, 2, 2])), "none of them zero");
    refuses(ReplayedNoise::new(&z.to_kind(Kind::Int64)), "`z` holds Int64");
    refuses(ReplayedNoise::new(&z.full_like(f64::NAN)), "`z` holds NaN or infinity");
    let with_steps = |steps: &Tensor| ReplayedNoise::new(&z).and_then(|replay| replay.with_steps(steps));
    refuses(with_steps(&zeros(&[3, 2, 4, 2])), "`steps` holds Float of shape [3, 2, 4, 2]");
    refuses(with_steps(&zeros(&[3, 1, 4, 2, 2])), "`steps` has shape [3, 1, 4, 2, 2]");

    let replay = with_steps(&zeros(&[3, 2, 4, 2, 2])).unwrap();
    refuses(replay.draw(&[2], Draw::Initial, SHAPE), "it holds 2 images; image 2, counted from 0");
    refuses(replay.draw(&[u64::MAX], Draw::Initial, SHAPE), "it holds 2 images");
    refuses(replay.draw(&[0], Draw::Step(3), SHAPE), "it holds 3 steps; step 3, counted from 0");
    let other = LatentShape { height: 3, ..SHAPE };
    refuses(replay.draw(&[0], Draw::Initial, other), "each image's latent is [4, 3, 2]");
    refuses(replay.check(&[0], 50, SHAPE), "it holds the noise of 3 steps, but the sampler takes 50");
    let denoiser = from_fn(|_, _| panic!("the walk must not start"));
    let initial_only = ReplayedNoise::new(&zeros(&[9, 4, 2, 2])).unwrap();
    refuses(walk(&denoiser, Parameterization::DIT, &initial_only, &z), "take ddim with eta 0, or record them");
}

#[test]
fn training_batches_that_do_not_fit() {
    let schedule = NoiseSchedule::linear(1000).unwrap().respaced(&Spacing::even(10)).unwrap();
    let tables = StepTables::new(&schedule, (Kind::Float, Device::Cpu));
    let x0 = zeros(&[2, 4, 2, 2]);
    let noised = |indices: &[usize]| {
        let indices: Vec<StepIndex> = indices.iter().copied().map(StepIndex).collect();
        NoisedBatch::new(&tables, &x0, &x0, &indices)
    };
    refuses(noised(&[0, 10]), "step index 10 is outside");
    refuses(noised(&[0]), "expected [2], one for each sample");
    refuses(noised(&[]), "expected [2], one for each sample");
    let from = |indices: Tensor| NoisedBatch::from_indices(&tables, &x0, &x0, &indices);
    refuses(from(Tensor::from_slice(&[0_i64, 10])), "step index 10 is outside");
    refuses(from(Tensor::from_slice(&[-1_i64, 3])), "step index -1 is outside");
    refuses(from(Tensor::from_slice(&[0_i32, 1])), "expected int64");
    refuses(from(Tensor::from(0_i64)), "expected (N)");
    refuses(NoisedBatch::new(&tables, &x0, &zeros(&[2, 4, 2, 1]), &[StepIndex(0); 2]), "the noise has shape");
    refuses(NoisedBatch::new(&tables, &zeros(&[2, 4]), &x0, &[StepIndex(0); 2]), "x0 has shape");
    let batch = noised(&[0, 9]).unwrap();
    refuses(Objective::DIT.terms(&batch, &x0), "reads 8 output channels");
    refuses(tables.at(&[StepIndex(10)]), "step index 10 is outside");
}
