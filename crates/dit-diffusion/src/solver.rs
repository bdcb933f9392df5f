use std::cell::RefCell;

use tch::Tensor;

use crate::{
    Denoiser, Error, Prediction, Result, SampleSchedule, Sampler, Step,
    noise::{BatchNoise, LatentShape},
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

    /// Whether any of its steps takes noise.
    fn is_stochastic(&self) -> bool;

    /// From `x` at the level of `at` to the next level on the way.
    ///
    /// # Shapes
    /// `x` (N, C, H, W) → (N, C, H, W).
    ///
    /// # Errors
    /// When the network fails, or the noise source does.
    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor>;
}

/// What a solver may ask during a step.
pub struct StepContext<'a> {
    pub(crate) sampler: &'a Sampler<'a>,
    pub(crate) denoiser: &'a dyn Denoiser,
    pub(crate) images: &'a [u64],
    pub(crate) step: &'a Step,
    /// What was last predicted, for those who watch.
    pub(crate) x0: RefCell<Option<Tensor>>,
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
    /// When the network or the classifier fails, gives another shape than is read, or gives NaN.
    pub fn predict(&self, x: &Tensor, step: &Step) -> Result<Prediction> {
        let failed = |source| Error::Denoiser { step: step.index(), timestep: step.timestep(), source };
        let output = self.denoiser.predict(x, step.timestep()).map_err(failed)?;
        let output = output.to_device(x.device()).to_kind(x.kind());
        let coefficients = step.into();
        let prediction = self.sampler.parameterization.interpret(&output, x, &coefficients, self.sampler.clip)?;
        check_finite("the network's output", &output, step, self.images)?;
        let Some(gradient) = self.denoiser.log_prob_gradient(x, step.timestep()).map_err(failed)? else {
            return Ok(self.remember(prediction));
        };
        let gradient = gradient.to_device(x.device()).to_kind(x.kind());
        if gradient.size() != x.size() {
            let expected = format!("{:?}, as the latents", x.size());
            return Err(Error::Shape { what: "the classifier's gradient", expected, found: gradient.size() });
        }
        check_finite("the classifier's gradient", &gradient, step, self.images)?;
        Ok(self.remember(prediction.guided(&gradient, &coefficients)))
    }

    fn remember(&self, prediction: Prediction) -> Prediction {
        self.x0.replace(Some(prediction.x0.shallow_clone()));
        prediction
    }
}

/// The noise of one step: taking it uses it up, so that no step takes the same noise twice.
pub struct StepNoise<'a> {
    pub(crate) batch: BatchNoise<'a>,
    pub(crate) number: u32,
    pub(crate) shape: LatentShape,
}

impl StepNoise<'_> {
    /// Standard normal noise of `x`'s shape, kind and device.
    ///
    /// # Errors
    /// When the source does not hold it.
    pub fn like(self, x: &Tensor) -> Result<Tensor> {
        self.batch.step(self.number, self.shape, (x.kind(), x.device()))
    }
}

/// Finds NaN and infinity, and the images that hold them.
pub(crate) fn check_finite(what: &'static str, x: &Tensor, step: &Step, images: &[u64]) -> Result<()> {
    if bool::try_from(x.isfinite().all()).unwrap_or(false) {
        return Ok(());
    }
    let finite = Vec::<bool>::try_from(x.flatten(1, -1).isfinite().all_dim(1, false)).unwrap_or_default();
    let images = images.iter().zip(finite).filter(|(_, finite)| !finite).map(|(&image, _)| image).collect();
    Err(Error::NonFinite { what, step: step.index(), timestep: step.timestep(), images })
}
