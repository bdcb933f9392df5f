//! What is refused, and that the message says what to do.

use std::ops::ControlFlow;

use dit_diffusion::*;
use tch::{Device, Kind, Tensor};

const SHAPE: LatentShape = LatentShape { channels: 4, height: 2, width: 2 };
const FIXED: Parameterization = Parameterization { mean: MeanTarget::Epsilon, variance: Variance::FixedLarge };

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

/// Ten steps.
fn schedule() -> SampleSchedule {
    NoiseSchedule::linear(1000).unwrap().respaced(&Spacing::even(10)).unwrap()
}

/// A walk over ten steps of images 7 and 8, with a denoiser of the test's own.
fn walk(
    denoiser: &dyn Denoiser,
    parameterization: Parameterization,
    source: &dyn Noise,
    start: &Tensor,
) -> Result<Tensor> {
    walk_with(denoiser, &mut Ddpm, parameterization, source, start)
}

fn walk_with(
    denoiser: &dyn Denoiser,
    solver: &mut dyn Solver,
    parameterization: Parameterization,
    source: &dyn Noise,
    start: &Tensor,
) -> Result<Tensor> {
    let schedule = schedule();
    let sampler = Sampler { schedule: &schedule, parameterization, clip: ClipX0::No };
    let noise = BatchNoise::new(source, &[7, 8]);
    sampler.run(denoiser, solver, noise, start, &mut |_| ControlFlow::Continue(()))
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn networks_that_do_not_fit() {
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
            "NaN or infinity in the network's output at step 2 (timestep 222), in images [8]",
        );
    }
    // Finite outputs that overflow when they are used.
    let denoiser = from_fn(|x, _| Ok(x.full_like(3e38)));
    refuses(
        walk(&denoiser, FIXED, &source, &start),
        "in what the solver made of finite predictions at step 9 (timestep 999)",
    );
}

#[test]
fn solvers_and_sources_have_errors_of_their_own() {
    #[track_caller]
    fn check(error: Error, says: &str) {
        assert_eq!(error.to_string(), says);
        assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some("no such file"));
    }
    let denoiser = from_fn(|x, _| Ok(x.tanh()));
    let start = zeros(&[2, 4, 2, 2]);
    let source = SeededNoise::new(0);
    let mut solver = Own(|_: &Tensor, _: StepNoise<'_>| Err(Error::Solver("no such file".into())));
    check(walk_with(&denoiser, &mut solver, FIXED, &source, &start).unwrap_err(), "the solver failed");
    let source = Remade(|_| Err(Error::Noise("no such file".into())));
    check(walk(&denoiser, FIXED, &source, &start).unwrap_err(), "the noise source failed");
}

#[test]
fn nan_is_blamed_on_where_it_comes_from() {
    let denoiser = from_fn(|x, _| Ok(x.tanh()));
    let start = zeros(&[2, 4, 2, 2]);
    let _ = start.get(1).get(0).get(0).get(0).fill_(f64::NAN);
    let says = "NaN or infinity in the latents to start from, in images [8]";
    refuses(walk(&denoiser, FIXED, &SeededNoise::new(0), &start), says);
    let spoilt = Remade(|z| Ok(z / 0.0));
    let says = "NaN or infinity in the noise that was drawn (Initial), in images [7, 8]";
    refuses(BatchNoise::new(&spoilt, &[7, 8]).initial(SHAPE, Device::Cpu), says);
    let says = "NaN or infinity in the noise that was drawn (Step(0)), in images [7, 8]";
    refuses(walk(&denoiser, FIXED, &spoilt, &zeros(&[2, 4, 2, 2])), says);
    check_solver(
        |x, _| Ok(x / 0.0),
        "NaN or infinity in what the solver made of finite predictions at step 9 (timestep 999), in images [7, 8]",
    );
}

#[test]
fn batches_that_do_not_fit() {
    let denoiser = from_fn(|x, _| Ok(x.shallow_clone()));
    let source = SeededNoise::new(0);
    for start in [zeros(&[3, 4, 2, 2]), zeros(&[1, 4, 2, 2])] {
        refuses(
            walk(&denoiser, Parameterization::DIT, &source, &start),
            "one sample for each image index, of which there are 2",
        );
    }
    for start in [zeros(&[2, 4, 2]), zeros(&[2, 4, 0, 2]), zeros(&[])] {
        refuses(walk(&denoiser, Parameterization::DIT, &source, &start), "expected (N, C, H, W), none of them zero");
    }
}

/// A source that makes something else of what it is asked for.
struct Remade<F>(F);

impl<F: Fn(Tensor) -> Result<Tensor>> Noise for Remade<F> {
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor> {
        (self.0)(SeededNoise::new(0).draw(images, at, shape)?)
    }
}

#[test]
fn noise_that_does_not_fit() {
    let denoiser = from_fn(|x, _| Ok(x.tanh()));
    #[track_caller]
    fn check(denoiser: &dyn Denoiser, remake: fn(Tensor) -> Result<Tensor>, says: &str) {
        let source = Remade(remake);
        refuses(BatchNoise::new(&source, &[7, 8]).initial(SHAPE, Device::Cpu), says);
        refuses(walk(denoiser, FIXED, &source, &zeros(&[2, 4, 2, 2])), says);
    }
    check(&denoiser, |z| Ok(z.narrow(1, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1)), "[2, 1, 1, 1]");
    check(
        &denoiser,
        |z| Ok(Tensor::cat(&[&z, &z.narrow(0, 0, 1)], 0)),
        "expected [2, 4, 2, 2], one latent for each image",
    );
    check(&denoiser, |z| Ok(z.to_kind(Kind::Int64)), "the kind of the drawn noise is Int64, expected Float");
    check(&denoiser, |z| Ok(z.to_kind(Kind::Double)), "the kind of the drawn noise is Double, expected Float");
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    if tch::Cuda::is_available() {
        eprintln!("SKIPPED: there is a GPU");
        return;
    }
    let source = SeededNoise::new(0);
    refuses(
        BatchNoise::new(&source, &[7]).initial(SHAPE, Device::Cuda(0)),
        "what a step needs cannot be moved to Cuda(0)",
    );
}

#[test]
fn noise_beyond_all_memory() {
    let most = LatentShape { channels: u32::MAX, height: u32::MAX, width: u32::MAX };
    for shape in
        [most, LatentShape { channels: 1, ..most }, LatentShape { channels: 1 << 30, height: 1 << 30, width: 1 }]
    {
        refuses(
            SeededNoise::new(0).draw(&[0, 1], Draw::Initial, shape),
            "there is no memory for the noise of 2 images",
        );
    }
}

/// A solver whose steps are `step(x, noise)`.
struct Own<F>(F);

impl<F: Fn(&Tensor, StepNoise<'_>) -> Result<Tensor>> Solver for Own<F> {
    fn is_stochastic(&self) -> bool {
        false
    }

    fn step(&mut self, _at: &StepContext<'_>, x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor> {
        (self.0)(x, noise)
    }
}

#[track_caller]
fn check_solver(step: fn(&Tensor, StepNoise<'_>) -> Result<Tensor>, says: &str) {
    let denoiser = from_fn(|x, _| Ok(x.tanh()));
    refuses(walk_with(&denoiser, &mut Own(step), FIXED, &SeededNoise::new(0), &zeros(&[2, 4, 2, 2])), says);
}

#[test]
fn solvers_that_do_not_keep_their_word() {
    check_solver(|x, _| Ok(x.narrow(2, 0, 1)), "[2, 4, 1, 2], expected [2, 4, 2, 2], as the latents");
    check_solver(|x, _| Ok(x.to_kind(Kind::Int64)), "the kind of the solver's result is Int64, expected Float");
    check_solver(|x, _| Ok(x.to_kind(Kind::BFloat16)), "BFloat16, expected Float, as the latents");
    check_solver(|x, _| Ok(x.to_kind(Kind::Double)), "Double, expected Float, as the latents");
    check_solver(|x, noise| noise.like(x), "the solver takes noise, but its is_stochastic() says that it takes none");
}

#[test]
fn only_floating_point_is_computed_with() {
    let start = zeros(&[2, 4, 2, 2]);
    let source = SeededNoise::new(0);
    let identity = from_fn(|x, _| Ok(x.shallow_clone()));
    let tables = StepTables::new(&schedule(), (Kind::Float, Device::Cpu));
    let batch = |x0: &Tensor, noise: &Tensor| NoisedBatch::new(&tables, x0, noise, &[StepIndex(0), StepIndex(9)]);
    let fixed = Objective { parameterization: FIXED, kind: LossKind::Mse };
    for kind in [Kind::Int64, Kind::Bool, Kind::ComplexFloat] {
        let says = |what: &str| format!("the kind of {what} is {kind:?}, expected floating point");
        let other = start.to_kind(kind);
        refuses(walk(&identity, FIXED, &source, &other), &says("the latents"));
        let network = from_fn(|x, _| Ok(x.to_kind(kind)));
        refuses(walk(&network, FIXED, &source, &start), &says("the network's output"));
        refuses(batch(&other, &start), &says("x0"));
        refuses(batch(&start, &other), &says("the noise"));
        refuses(batch(&start, &start).and_then(|batch| fixed.terms(&batch, &other)), &says("the network's output"));
        // Guidance computes with the outputs before samplers see them.
        let network = |x: &Tensor, _, _: &Tensor| Ok(x.to_kind(kind));
        let labels = Tensor::from_slice(&[1_i64, 2]);
        let branches = ClassConditional::new(network, &labels, 10).unwrap();
        let guided = ClassifierFree::new(branches, 4.0, GuidedChannels::All).unwrap();
        let error = guided.predict(&start, Timestep(0)).unwrap_err();
        assert_eq!(error.to_string(), says("the conditional branch"));
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
    let schedule = schedule();
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
    refuses(from(Tensor::from(0_i64)), "expected (N), N at least 1");
    refuses(from(Tensor::from_slice::<i64>(&[])), "the shape of the step indices is [0], expected (N), N at least 1");
    refuses(
        NoisedBatch::new(&tables, &x0, &zeros(&[2, 4, 2, 1]), &[StepIndex(0); 2]),
        "the shape of the noise is [2, 4, 2, 1]",
    );
    refuses(NoisedBatch::new(&tables, &zeros(&[2, 4]), &x0, &[StepIndex(0); 2]), "the shape of x0 is [2, 4]");
    let batch = noised(&[0, 9]).unwrap();
    refuses(Objective::DIT.terms(&batch, &x0), "reads 8 output channels");
    refuses(tables.at(&[StepIndex(10)]), "step index 10 is outside");
}
