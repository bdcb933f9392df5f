use tch::Tensor;

use crate::{Result, Solver, StepContext, StepIndex, StepNoise};

/// Heun's method on dx̄/dσ = ε, where x̄ = x/√ᾱ and σ = √((1 − ᾱ)/ᾱ): a step of Euler's, then one with the mean of the slopes at
/// both ends. Karras et al. 2022, algorithm 1.
///
/// Two calls of the network a step, but one at the final step, which is Euler's. Euler's method alone is
/// [`Ddim`](crate::Ddim) with η = 0: the two are the same formula. A learned variance is not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heun;

impl Solver for Heun {
    fn is_stochastic(&self) -> bool {
        false
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, _noise: StepNoise<'_>) -> Result<Tensor> {
        let step = at.step();
        let here = at.predict(x, step)?;
        let Some(below) = step.index().0.checked_sub(1) else {
            return Ok(here.x0);
        };
        let scaled = (step.signal_prev() / step.signal()) * x;
        let stride = step.signal_prev() * (step.sigma_prev() - step.sigma());
        let euler = &scaled + stride * &here.eps;
        let there = at.predict(&euler, at.schedule().step(StepIndex(below))?)?;
        Ok(scaled + (0.5 * stride) * (here.eps + there.eps)) // (N, C, H, W)
    }
}
