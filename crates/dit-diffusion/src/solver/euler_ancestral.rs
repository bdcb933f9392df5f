use tch::Tensor;

use crate::{Result, Solver, StepContext, StepNoise};

/// Euler's method to a level below the next, σ_down = σ'²/σ, then noise back up to it: σ_up² = σ'² − σ_down². The "ancestral"
/// sampler of k-diffusion: ancestral sampling of the variance-exploding process x̄ = x/√ᾱ (Song et al. 2021, appendix F), σ =
/// √((1 − ᾱ)/ᾱ).
///
/// [`Ddpm`](crate::Ddpm) is its variance-preserving sibling, and adds less noise. A learned variance is not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EulerAncestral;

impl Solver for EulerAncestral {
    fn is_stochastic(&self) -> bool {
        true
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor> {
        let step = at.step();
        let p = at.predict(x, step)?;
        if step.is_final() {
            return Ok(p.x0);
        }
        let (sigma, next) = (step.sigma(), step.sigma_prev());
        let down = next * next / sigma;
        let up = (next * next - down * down).sqrt();
        let scale = step.signal_prev();
        let moved = (scale / step.signal()) * x + (scale * (down - sigma)) * p.eps;
        Ok(moved + (scale * up) * noise.like(x)?) // (N, C, H, W)
    }
}
