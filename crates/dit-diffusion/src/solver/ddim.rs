use tch::Tensor;

use crate::{Direction, Error, Result, Solver, StepContext, StepNoise};

/// DDIM: x_{t−1} = √ᾱ_{t−1} x₀ + √(1 − ᾱ_{t−1} − σ²) ε + σ z, where σ² = η²·β̃_t. Song et al. 2021, eq. 12 and 16.
///
/// η = 0 is deterministic and takes no noise at all; η = 1 is as noisy as [`Ddpm`](crate::Ddpm) with the small fixed
/// variance. η = 0 is also Euler's method on dx̄/dσ = ε with x̄ = x/√ᾱ, σ = √((1 − ᾱ)/ᾱ): what other programs call "euler". A learned
/// variance is not used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddim {
    eta: f64,
}

impl Ddim {
    /// η = 0.
    pub const fn deterministic() -> Self {
        Self { eta: 0.0 }
    }

    /// Any η from 0 to 1: within it, 1 − ᾱ_{t−1} − σ² is never negative.
    ///
    /// # Errors
    /// Outside that range.
    pub fn new(eta: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&eta) { Ok(Self { eta }) } else { Err(Error::Eta { eta }) }
    }
}

impl Solver for Ddim {
    fn is_stochastic(&self) -> bool {
        self.eta > 0.0
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, noise: StepNoise<'_>) -> Result<Tensor> {
        let p = at.predict(x, at.step())?;
        let prev = at.step().alpha_bar_prev();
        let variance = self.eta.powi(2) * at.step().posterior_variance();
        let direction = (1.0 - prev - variance).max(0.0).sqrt(); // rounding may leave −1e-17 for a zero
        let next = prev.sqrt() * p.x0 + direction * p.eps;
        if variance == 0.0 {
            return Ok(next);
        }
        Ok(next + variance.sqrt() * noise.like(x)?) // (N, C, H, W)
    }
}

/// The deterministic DDIM step backwards, from data to noise: x_{t+1} = √ᾱ_{t+1} x₀ + √(1 − ᾱ_{t+1}) ε. Song et al. 2021,
/// section 4.3. Its last step goes to pure noise (ᾱ = 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DdimReverse;

impl Solver for DdimReverse {
    fn direction(&self) -> Direction {
        Direction::Noising
    }

    fn is_stochastic(&self) -> bool {
        false
    }

    fn step(&mut self, at: &StepContext<'_>, x: &Tensor, _noise: StepNoise<'_>) -> Result<Tensor> {
        let p = at.predict(x, at.step())?;
        let next = at.step().alpha_bar_next();
        Ok(next.sqrt() * p.x0 + (1.0 - next).sqrt() * p.eps) // (N, C, H, W)
    }
}
