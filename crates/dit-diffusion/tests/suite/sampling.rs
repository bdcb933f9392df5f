//! The sampling loop and its solvers on canned denoisers.

use std::{cell::Cell, ops::ControlFlow};

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

use crate::fixtures::{close, relative};

const SHAPE: LatentShape = LatentShape { channels: 4, height: 8, width: 8 };
const EPS: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedSmall };

fn schedule(spacing: &str) -> SampleSchedule {
    NoiseSchedule::linear(1000).unwrap().respaced(&spacing.parse().unwrap()).unwrap()
}

fn sampler(schedule: &SampleSchedule) -> Sampler<'_> {
    Sampler { schedule, parameterization: EPS, clip: ClipX0::No }
}

/// Not linear, and different at every timestep; each sample by itself, as a network's is.
fn canned() -> impl Denoiser {
    from_fn(|x, t| Ok((x * 0.7 + f64::from(t.0) / 999.0).tanh()))
}

fn on_and_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn solvers() -> Vec<(&'static str, Box<dyn Solver>)> {
    vec![
        ("ddpm", Box::new(Ddpm)),
        ("ddim", Box::new(Ddim::deterministic())),
        ("ddim, eta 0.5", Box::new(Ddim::new(0.5).unwrap())),
        ("ddim reverse", Box::new(DdimReverse)),
        ("dpm++ 2m", Box::new(DpmPlusPlus::second_order())),
        ("dpm++ 3m", Box::new(DpmPlusPlus::third_order())),
        ("dpm++ 3m exact", Box::new(DpmPlusPlus::third_order_exact())),
        ("dpm++ 2m sde", Box::new(SdeDpmPlusPlus::new())),
        ("unipc 2", Box::new(UniPc::second_order())),
        ("unipc 3", Box::new(UniPc::third_order())),
        ("heun", Box::new(Heun)),
        ("euler ancestral", Box::new(EulerAncestral)),
    ]
}

fn walk(solver: &mut dyn Solver, images: &[u64]) -> Tensor {
    let schedule = schedule("10");
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, images);
    let start = noise.initial(SHAPE, Device::Cpu).unwrap();
    sampler(&schedule).run(&canned(), solver, noise, &start, &mut on_and_on).unwrap()
}

#[test]
fn an_image_is_the_same_in_every_batch() {
    for (name, mut solver) in solvers() {
        let together = walk(&mut *solver, &[4, 0, 7, 1]);
        for (row, image) in [4, 0, 7, 1].into_iter().enumerate() {
            let alone = walk(&mut *solver, &[image]);
            close(&format!("{name}: image {image}"), &together.narrow(0, row as i64, 1), &alone, 0.0);
        }
        assert!(relative(&together.get(0), &together.get(1)) > 0.01, "{name}: different images differ");
    }
}

/// Noise that must not be asked for after the start.
struct Silent;

impl Noise for Silent {
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor> {
        match at {
            Draw::Initial => SeededNoise::new(0).draw(images, at, shape),
            Draw::Step(number) => Err(Error::Replay(format!("step {number} was asked for"))),
        }
    }
}

#[test]
fn only_stochastic_solvers_take_noise() {
    let schedule = schedule("10");
    for (name, mut solver) in solvers() {
        let noise = BatchNoise::new(&Silent, &[0]);
        let start = noise.initial(SHAPE, Device::Cpu).unwrap();
        let result = sampler(&schedule).run(&canned(), &mut *solver, noise, &start, &mut on_and_on);
        assert_eq!(result.is_err(), solver.is_stochastic(), "{name}");
    }
    assert!(!Ddim::new(0.0).unwrap().is_stochastic());
}

/// Counts draws, and hands out seeded noise.
struct Counting(Cell<Vec<u32>>);

impl Noise for Counting {
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor> {
        if let Draw::Step(number) = at {
            let mut seen = self.0.take();
            seen.push(number);
            self.0.set(seen);
        }
        SeededNoise::new(0).draw(images, at, shape)
    }
}

#[test]
fn the_last_step_takes_no_noise() {
    let schedule = schedule("10");
    for (name, mut solver) in solvers().into_iter().filter(|(_, solver)| solver.is_stochastic()) {
        let source = Counting(Cell::default());
        let noise = BatchNoise::new(&source, &[0]);
        let start = noise.initial(SHAPE, Device::Cpu).unwrap();
        let _ = sampler(&schedule).run(&canned(), &mut *solver, noise, &start, &mut on_and_on).unwrap();
        assert_eq!(source.0.take(), (0..9).collect::<Vec<u32>>(), "{name}: in sampling order, nine of ten");
    }
}

#[test]
fn the_network_sees_the_kept_timesteps_in_order() {
    let schedule = schedule("ddim5");
    for (name, mut solver) in solvers() {
        let seen = Cell::new(Vec::new());
        let denoiser = from_fn(|x, t| {
            let mut so_far = seen.take();
            so_far.push(t.0);
            seen.set(so_far);
            Ok(x * 0.5)
        });
        let source = SeededNoise::new(0);
        let noise = BatchNoise::new(&source, &[0]);
        let start = noise.initial(SHAPE, Device::Cpu).unwrap();
        let direction = solver.direction();
        let _ = sampler(&schedule).run(&denoiser, &mut *solver, noise, &start, &mut on_and_on).unwrap();
        let mut expected = vec![0, 200, 400, 600, 800];
        if direction == Direction::Denoising {
            expected.reverse();
        }
        let mut seen = seen.take();
        assert_eq!(seen.len(), if name == "heun" { 9 } else { 5 }, "{name}");
        seen.dedup(); // Heun's second slope is taken where the next step begins
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn observers_see_every_state_and_may_cancel() {
    let schedule = schedule("10");
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[0, 1]);
    let start = noise.initial(SHAPE, Device::Cpu).unwrap();
    let mut states = Vec::new();
    let mut levels = Vec::new();
    let end = sampler(&schedule)
        .run(&canned(), &mut Ddpm, noise, &start, &mut |progress| {
            assert_eq!((progress.done, progress.total), (states.len(), 10));
            states.push(progress.x.copy());
            levels.extend(progress.last.map(|step| step.index().0));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(states.len(), 11);
    assert_eq!(levels, (0..10).rev().collect::<Vec<usize>>());
    close("first", &states[0], &start, 0.0);
    close("last", &states[10], &end, 0.0);
    // A step by itself is the step of the walk, noise and all.
    for (done, pair) in states.windows(2).enumerate() {
        let one = sampler(&schedule).step(&canned(), &mut Ddpm, noise, StepIndex(9 - done), &pair[0]).unwrap();
        close("step", &one, &pair[1], 0.0);
    }

    for stop in [0, 3, 10] {
        let asked = Cell::new(0);
        let denoiser = from_fn(|x, _| {
            asked.set(asked.get() + 1);
            Ok(x * 0.5)
        });
        let cancel = |progress: Progress<'_>| {
            if progress.done == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = sampler(&schedule).run(&denoiser, &mut Ddpm, noise, &start, &mut { cancel }).unwrap_err();
        assert!(matches!(error, Error::Cancelled { done, total: 10 } if done == stop), "{error}");
        assert_eq!(asked.get(), stop, "nothing is computed after");
    }
}

#[test]
fn ddim_at_eta_one_is_ddpm_with_the_small_variance() {
    let schedule = schedule("25");
    let source = SeededNoise::new(4);
    let noise = BatchNoise::new(&source, &[0, 1]);
    let start = noise.initial(SHAPE, Device::Cpu).unwrap().to_kind(Kind::Double);
    let ends: Vec<Tensor> = [Box::new(Ddpm) as Box<dyn Solver>, Box::new(Ddim::new(1.0).unwrap())]
        .into_iter()
        .map(|mut solver| sampler(&schedule).run(&canned(), &mut *solver, noise, &start, &mut on_and_on).unwrap())
        .collect();
    assert_eq!(ends[0].kind(), Kind::Double);
    // At the final step both give x₀.
    close("latents", &ends[1], &ends[0], 1e-11);
}

#[test]
fn a_multistep_solver_begins_every_walk_without_memory() {
    let schedule = schedule("10");
    for (name, mut solver) in solvers() {
        let first = walk(&mut *solver, &[0]);
        close(name, &walk(&mut *solver, &[0]), &first, 0.0);
        if solver.direction() == Direction::Noising {
            continue;
        }
        // A step elsewhere is taken without memory too: as the first step of a walk, of order 1.
        let source = SeededNoise::new(0);
        let noise = BatchNoise::new(&source, &[0]);
        let x = noise.initial(SHAPE, Device::Cpu).unwrap();
        let mut step = |index| sampler(&schedule).step(&canned(), &mut *solver, noise, StepIndex(index), &x).unwrap();
        let fresh = step(5);
        let _ = step(9);
        close(&format!("{name}: a step by itself"), &step(5), &fresh, 0.0);
    }
}

#[test]
fn a_clone_goes_on_with_the_same_memory() {
    #[track_caller]
    fn check<S: Solver + Clone>(mut solver: S) {
        let schedule = schedule("10");
        let source = SeededNoise::new(0);
        let noise = BatchNoise::new(&source, &[0]);
        let mut x = noise.initial(SHAPE, Device::Cpu).unwrap();
        let step = |solver: &mut S, index, x: &Tensor| {
            sampler(&schedule).step(&canned(), solver, noise, StepIndex(index), x).unwrap()
        };
        for index in [9, 8, 7] {
            x = step(&mut solver, index, &x);
        }
        let mut clone = solver.clone();
        let mut fresh = solver.clone();
        fresh.begin();
        let next = step(&mut clone, 6, &x);
        assert!(relative(&step(&mut fresh, 6, &x), &next) > 0.0, "memory matters");
        close("the clone's step", &next, &step(&mut solver, 6, &x), 0.0);
        close("the clone's next", &step(&mut clone, 5, &next), &step(&mut solver, 5, &next), 0.0);
    }
    check(DpmPlusPlus::second_order());
    check(DpmPlusPlus::third_order_exact());
    check(SdeDpmPlusPlus::new());
    check(UniPc::third_order());
}

#[test]
fn what_a_solver_is_handed_can_be_shown() {
    struct Shown;

    impl Solver for Shown {
        fn is_stochastic(&self) -> bool {
            true
        }

        fn step(&mut self, at: &StepContext<'_>, _x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor> {
            Err(Error::Solver(format!("{at:?}, {noise:?}").into()))
        }
    }

    let schedule = schedule("10");
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[7]);
    let x = noise.initial(SHAPE, Device::Cpu).unwrap();
    let error = sampler(&schedule).step(&canned(), &mut Shown, noise, StepIndex(3), &x).unwrap_err();
    let shown = std::error::Error::source(&error).unwrap().to_string();
    for part in ["StepContext { images: [7], step: Step { index: StepIndex(3)", "BatchNoise { images: [7], .. }"] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn what_holds_tensors_can_be_sent() {
    fn check<T: Send>() {}
    check::<StepTables>();
    check::<ReplayedNoise>();
    check::<DpmPlusPlus>();
    check::<UniPc>();
}

#[test]
fn orders_beyond_one_begin_with_ddim() {
    let schedule = schedule("10");
    for mut solver in [
        Box::new(DpmPlusPlus::second_order()) as Box<dyn Solver>,
        Box::new(DpmPlusPlus::third_order()),
        Box::new(UniPc::third_order()),
    ] {
        let source = SeededNoise::new(0);
        let noise = BatchNoise::new(&source, &[0]);
        let x = noise.initial(SHAPE, Device::Cpu).unwrap().to_kind(Kind::Double);
        for index in [0, 5, 9] {
            let step = |solver: &mut dyn Solver| {
                sampler(&schedule).step(&canned(), solver, noise, StepIndex(index), &x).unwrap()
            };
            close(&format!("step {index}"), &step(&mut *solver), &step(&mut Ddim::deterministic()), 1e-12);
        }
    }
}

#[test]
fn ddim_undoes_its_reverse() {
    let schedule = schedule("50");
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[0]);
    let x = noise.initial(SHAPE, Device::Cpu).unwrap().to_kind(Kind::Double);
    let eps = x.tanh();
    // The same ε both ways: the step is then exactly invertible.
    let denoiser = from_fn(|_, _| Ok(eps.shallow_clone()));
    for index in 1..50 {
        let sampler = sampler(&schedule);
        let noisier = sampler.step(&denoiser, &mut DdimReverse, noise, StepIndex(index - 1), &x).unwrap();
        let back = sampler.step(&denoiser, &mut Ddim::deterministic(), noise, StepIndex(index), &noisier).unwrap();
        assert!(relative(&noisier, &x) > 1e-3, "step {index} moves");
        close(&format!("step {index}"), &back, &x, 1e-11);
    }
}

#[test]
fn q_sample_has_the_mean_and_variance_of_the_forward_process() {
    let images: Vec<u64> = (0..2000).collect();
    let noise = SeededNoise::new(0).draw(&images, Draw::Initial, SHAPE).unwrap(); // 512,000 normals
    let x0 = noise.full_like(0.8);
    for index in [0, 30, 49] {
        let step = *schedule("50").step(StepIndex(index)).unwrap();
        let x_t = Coefficients::from(&step).q_sample(&x0, &noise).to_kind(Kind::Double);
        let n = x_t.numel() as f64;
        let mean = x_t.mean(Kind::Double).double_value(&[]);
        let variance = (&x_t - mean).square().mean(Kind::Double).double_value(&[]);
        let expected = 1.0 - step.alpha_bar();
        assert!(
            (mean - 0.8 * step.alpha_bar().sqrt()).abs() < 5.0 * (expected / n).sqrt(),
            "step {index}: mean {mean}"
        );
        assert!((variance / expected - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "step {index}: variance {variance}");
    }
}

#[test]
fn half_precision_is_the_denoiser_s_own_business() {
    let schedule = schedule("10");
    let source = SeededNoise::new(0);
    let noise = BatchNoise::new(&source, &[0]);
    let start = noise.initial(SHAPE, Device::Cpu).unwrap().to_kind(Kind::BFloat16);
    let denoiser = from_fn(|x, _| {
        assert_eq!(x.kind(), Kind::Float, "latents are carried in fp32");
        Ok((x * 0.5).to_kind(Kind::BFloat16))
    });
    let end = sampler(&schedule).run(&denoiser, &mut Ddpm, noise, &start, &mut on_and_on).unwrap();
    assert_eq!(end.kind(), Kind::Float);
}
