use std::{cell::RefCell, ops::ControlFlow};

use tch::{Kind, Tensor};

use crate::{
    BatchNoise, ClipX0, Denoiser, Direction, Error, LatentShape, Parameterization, Result, SampleSchedule, Solver,
    Step, StepContext, StepIndex, StepNoise,
    finite::{Suspect, Watch, check_finite},
    parameterization::{check_floating, check_latents},
};

/// The one sampling loop. It owns progress, noise, cancellation and the watch for NaN; what a step does is the
/// [`Solver`]'s, what the network says the [`Denoiser`]'s.
#[derive(Clone, Copy, Debug)]
pub struct Sampler<'a> {
    /// The steps to walk.
    pub schedule: &'a SampleSchedule,
    /// How the network's output is read.
    pub parameterization: Parameterization,
    /// Whether estimates of x₀ are clipped.
    pub clip: ClipX0,
}

/// Where a walk is: shown before the first step and after each.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Steps finished.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// The step just taken; none before the first.
    pub last: Option<&'a Step>,
    /// The latents as they are now: (N, C, H, W).
    pub x: &'a Tensor,
    /// The estimate of the clean latents by which the step just taken moved, guidance included: (N, C, H, W).
    pub x0: Option<&'a Tensor>,
}

impl Sampler<'_> {
    /// Walks the whole schedule from `start`, and returns the latents at its other end.
    ///
    /// `observe` sees every state; breaking out of it cancels. Runs without gradients, in fp32, or in f64 if `start` is;
    /// the denoiser may compute in what it likes.
    ///
    /// # Shapes
    /// `start` (N, C, H, W), any floating kind, one image index of `noise` for each sample → (N, C, H, W), on `start`'s device.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `observe` breaks; else when shapes disagree, when a tensor is not floating point, when the noise source cannot serve the walk, when
    /// the network or the solver fails, when the solver gives other latents than it was given or takes noise that it said it would
    /// not, and when NaN or infinity appears anywhere. (A GPU is asked about that every few steps, so that it need not wait for more
    /// work at each; the error is the same, and `observe` may have seen what follows from it.)
    pub fn run(
        &self,
        denoiser: &dyn Denoiser,
        solver: &mut dyn Solver,
        noise: BatchNoise<'_>,
        start: &Tensor,
        observe: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let shape = check_batch(start, noise)?;
        check_finite(start, noise.images(), |images| Error::NonFiniteStart { images })?;
        let total = self.schedule.num_steps();
        let stochastic = solver.is_stochastic();
        if stochastic {
            noise.check(total, shape)?;
        }
        let mut look =
            |done, last, x: &Tensor, x0: Option<&Tensor>| match observe(Progress { done, total, last, x, x0 }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled { done, total }),
            };
        let steps = self.schedule.steps().iter();
        let steps: Vec<&Step> = match solver.direction() {
            Direction::Denoising => steps.rev().collect(),
            Direction::Noising => steps.collect(),
        };
        solver.begin();
        let mut x = working_kind(start);
        look(0, None, &x, None)?;
        let watch = Watch::new(noise.images(), x.device());
        for (number, step) in (0_u32..).zip(steps) {
            let noise = StepNoise { batch: noise, number, shape, stochastic };
            let advanced = self.advance(denoiser, solver, noise, &watch, step, &x);
            // What was not finite before may be why.
            let (next, x0) = advanced.or_else(|error| watch.ask().and(Err(error)))?;
            x = next;
            look(number as usize + 1, Some(step), &x, x0.as_ref())?;
        }
        watch.ask()?;
        Ok(x)
    }

    /// Takes the single step `index`, as a walk would: for callers with a loop of their own, and for checking solvers that have
    /// no memory. The step's noise is that of its place in a whole walk.
    ///
    /// # Shapes
    /// `x` (N, C, H, W) → (N, C, H, W).
    ///
    /// # Errors
    /// As [`Sampler::run`], and when the index is beyond the schedule.
    pub fn step(
        &self,
        denoiser: &dyn Denoiser,
        solver: &mut dyn Solver,
        noise: BatchNoise<'_>,
        index: StepIndex,
        x: &Tensor,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let shape = check_batch(x, noise)?;
        let step = self.schedule.step(index)?;
        let place = match solver.direction() {
            Direction::Denoising => self.schedule.num_steps() - 1 - index.0,
            Direction::Noising => index.0,
        };
        let x = working_kind(x);
        let watch = Watch::new(noise.images(), x.device());
        // A schedule is no longer than its training steps, which are counted in u32.
        let noise = StepNoise { batch: noise, number: place as u32, shape, stochastic: solver.is_stochastic() };
        let (next, _) = self.advance(denoiser, solver, noise, &watch, step, &x)?;
        watch.ask()?;
        Ok(next)
    }

    /// The next state, and the estimate of x₀ that led there.
    fn advance(
        &self,
        denoiser: &dyn Denoiser,
        solver: &mut dyn Solver,
        noise: StepNoise<'_>,
        watch: &Watch<'_>,
        step: &Step,
        x: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let context = StepContext { sampler: self, denoiser, watch, step, x0: RefCell::new(None) };
        let next = solver.step(&context, x, noise)?;
        check_result(&next, x)?;
        watch.see(Suspect::result(step), &next)?;
        Ok((next, context.x0.into_inner()))
    }
}

/// Whether a step led to latents like those it came from; nothing after it would ask.
fn check_result(next: &Tensor, x: &Tensor) -> Result<()> {
    let what = "the solver's result";
    if next.size() != x.size() {
        let expected = format!("{:?}, as the latents", x.size());
        return Err(Error::Shape { what, expected, found: next.size() });
    }
    match (next.kind(), x.kind()) {
        (found, wanted) if found == wanted => Ok(()),
        (found, Kind::Double) => Err(Error::Kind { what, expected: "Double, as the latents", found }),
        (found, _) => Err(Error::Kind { what, expected: "Float, as the latents", found }),
    }
}

/// fp32, unless the latents are in f64.
fn working_kind(x: &Tensor) -> Tensor {
    match x.kind() {
        Kind::Double => x.shallow_clone(),
        _ => x.to_kind(Kind::Float),
    }
}

fn check_batch(x: &Tensor, noise: BatchNoise<'_>) -> Result<LatentShape> {
    let (samples, channels, height, width) = check_latents("the latents", x)?;
    check_floating("the latents", x)?;
    let images = noise.images().len();
    let sides = [channels, height, width].map(u32::try_from);
    match sides {
        [Ok(channels), Ok(height), Ok(width)] if usize::try_from(samples) == Ok(images) => {
            Ok(LatentShape { channels, height, width })
        }
        _ => Err(Error::Shape {
            what: "the latents",
            expected: format!("one sample for each image index, of which there are {images}"),
            found: x.size(),
        }),
    }
}
