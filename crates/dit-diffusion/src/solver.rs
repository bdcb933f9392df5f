use std::cell::RefCell;

use tch::Tensor;

use crate::{
    Denoiser, Error, Prediction, Result, SampleSchedule, Sampler, Step,
    finite::{Suspect, Watch},
    noise::{BatchNoise, LatentShape},
    parameterization::check_floating,
};

mod ddim;
mod ddpm;
mod dpmpp;
mod dpmpp_sde;
mod euler_ancestral;
mod heun;
mod history;
mod unipc;

pub use ddim::{Ddim, DdimReverse};
pub use ddpm::Ddpm;
pub use dpmpp::DpmPlusPlus;
pub use dpmpp_sde::SdeDpmPlusPlus;
pub use euler_ancestral::EulerAncestral;
pub use heun::Heun;
pub use unipc::UniPc;

/// Which way a walk goes over the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From noise to data: the last step of the schedule first.
    Denoising,
    /// From data to noise: step 0 first.
    Noising,
}

/// One rule for moving latents from one noise level to the next.
///
/// A solver may remember earlier steps: [`Solver::begin`] tells it that a new walk starts. It may ask the network several
/// times in a step, and may take noise once.
pub trait Solver {
    /// Forgets earlier walks. Solvers without memory have nothing to do.
    fn begin(&mut self) {}

    /// Which way it walks.
    fn direction(&self) -> Direction {
        Direction::Denoising
    }

    /// Whether any of its steps takes noise. One that does not gets none: the noise source was not asked whether it can serve the
    /// walk.
    fn is_stochastic(&self) -> bool;

    /// From `x` at the level of `at` to the next level on the way.
    ///
    /// # Shapes
    /// `x` (N, C, H, W) → (N, C, H, W), of `x`'s kind.
    ///
    /// # Errors
    /// When the network fails, or the noise source does. Errors of an implementation's own go into [`Error::Solver`].
    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor>;
}

/// What a solver may ask during a step.
pub struct StepContext<'a> {
    pub(crate) sampler: &'a Sampler<'a>,
    pub(crate) denoiser: &'a dyn Denoiser,
    pub(crate) watch: &'a Watch<'a>,
    pub(crate) step: &'a Step,
    /// What was last predicted, for those who watch.
    pub(crate) x0: RefCell<Option<Tensor>>,
}

impl std::fmt::Debug for StepContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sampler: _, denoiser: _, watch, step, x0: _ } = self;
        f.debug_struct("StepContext").field("images", &watch.images).field("step", step).finish_non_exhaustive()
    }
}

impl StepContext<'_> {
    /// The step to take: `x` is at its noise level.
    pub fn step(&self) -> &Step {
        self.step
    }

    /// The schedule that is walked.
    pub fn schedule(&self) -> &SampleSchedule {
        self.sampler.schedule
    }

    /// Asks the network about `x` at the noise level of `step`, and reads its output; a classifier's guidance is in it.
    ///
    /// # Errors
    /// When the network or the classifier fails, gives another shape or kind than is read, or gives NaN.
    pub fn predict(&self, x: &Tensor, step: &Step) -> Result<Prediction> {
        let failed = |source| Error::Denoiser { step: step.index(), timestep: step.timestep(), source };
        let output = self.denoiser.predict(x, step.timestep()).map_err(failed)?;
        let what = "the network's output";
        check_floating(what, &output)?;
        let output = output.to_device(x.device()).to_kind(x.kind());
        let coefficients = step.into();
        let prediction = self.sampler.parameterization.interpret(&output, x, &coefficients, self.sampler.clip)?;
        self.watch.see(Suspect::said(what, step), &output)?;
        let Some(gradient) = self.denoiser.log_prob_gradient(x, step.timestep()).map_err(failed)? else {
            return Ok(self.remember(prediction));
        };
        let what = "the classifier's gradient";
        check_floating(what, &gradient)?;
        let gradient = gradient.to_device(x.device()).to_kind(x.kind());
        if gradient.size() != x.size() {
            let expected = format!("{:?}, as the latents", x.size());
            return Err(Error::Shape { what, expected, found: gradient.size() });
        }
        self.watch.see(Suspect::said(what, step), &gradient)?;
        Ok(self.remember(prediction.guided(&gradient, &coefficients)))
    }

    fn remember(&self, prediction: Prediction) -> Prediction {
        self.x0.replace(Some(prediction.x0.shallow_clone()));
        prediction
    }
}

/// The noise of one step: taking it uses it up, so that no step takes the same noise twice.
#[derive(Debug)]
pub struct StepNoise<'a> {
    pub(crate) batch: BatchNoise<'a>,
    pub(crate) number: u32,
    pub(crate) shape: LatentShape,
    /// Whether the solver said that it takes noise.
    pub(crate) stochastic: bool,
}

impl StepNoise<'_> {
    /// Standard normal noise of the walk's latents' shape, of `x`'s kind and on its device. `x`'s own shape does not count.
    ///
    /// # Errors
    /// When the source does not hold it, and for solvers that said they take none ([`Solver::is_stochastic`]).
    pub fn like(self, x: &Tensor) -> Result<Tensor> {
        if !self.stochastic {
            return Err(Error::UnannouncedNoise);
        }
        self.batch.step(self.number, self.shape, (x.kind(), x.device()))
    }
}
