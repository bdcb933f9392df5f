use tch::Tensor;

use super::{
    StepContext, StepNoise,
    dpmpp::{order_left, slope},
    history::History,
};
use crate::{Result, Solver};

/// SDE-DPM-Solver++(2M): the reverse diffusion with its noise, at second order in data prediction. Lu et al. 2022
/// (DPM-Solver++), section 5.
///
/// With α = √ᾱ, σ = √(1 − ᾱ), h = λ' − λ: x' = (σ'/σ) e^(−h) x + α' (1 − e^(−2h)) (x₀ + ½ D₁) + σ' √(1 − e^(−2h)) z, where D₁ is
/// the difference to the last prediction in units of h. Its first step has D₁ = 0, and so has the final one, which is exact
/// (x' = x₀). A learned variance is not used.
#[derive(Clone, Debug)]
pub struct SdeDpmPlusPlus {
    history: History,
}

impl SdeDpmPlusPlus {
    /// Order 2, with the noise of the whole reverse diffusion.
    pub fn new() -> Self {
        Self { history: History::new(1) }
    }
}

impl Default for SdeDpmPlusPlus {
    fn default() -> Self {
        Self::new()
    }
}

impl Solver for SdeDpmPlusPlus {
    fn begin(&mut self) {
        self.history.clear();
    }

    fn is_stochastic(&self) -> bool {
        true
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor> {
        let step = at.step();
        let x0 = at.predict(x, step)?.x0;
        let h = step.lambda_prev() - step.lambda();
        let renewed = -(-2.0 * h).exp_m1(); // the share of the noise that is drawn anew
        let kept = (step.noise_prev() / step.noise() * (-h).exp()) * x;
        let toward = match self.history.before(step, order_left(at, 2) - 1) {
            [] => x0.shallow_clone(),
            [before, ..] => &x0 + 0.5 * slope(step, &x0, before, h),
        };
        self.history.push(step, x0);
        let mean = kept + (step.signal_prev() * renewed) * toward;
        if step.is_final() {
            return Ok(mean);
        }
        Ok(mean + (step.noise_prev() * renewed.sqrt()) * noise.like(x)?) // (N, C, H, W)
    }
}
