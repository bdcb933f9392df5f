use tch::Tensor;

use crate::{Result, Solver, StepContext, StepNoise};

/// Ancestral sampling: a draw of p(x_{t−1} | x_t), with no noise at the final step. Ho et al. 2020, algorithm 2. With 250 steps
/// it is how the released DiTs were evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ddpm;

impl Solver for Ddpm {
    fn is_stochastic(&self) -> bool {
        true
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor> {
        let p = at.predict(x, at.step())?;
        if at.step().is_final() {
            return Ok(p.mean);
        }
        let std = (p.log_variance / 2.0).exp();
        Ok(p.mean + std * noise.like(x)?) // (N, C, H, W)
    }
}
