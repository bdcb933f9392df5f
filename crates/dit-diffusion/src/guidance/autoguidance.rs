use tch::Tensor;

use super::{Branches, ConditionalDenoiser};
use crate::{Denoiser, DenoiserError, Timestep};

/// Guidance by a weaker version of the network, instead of one without labels: ε = ε_weak + s·(ε_strong − ε_weak). Karras et al.
/// 2024 (Guiding a diffusion model with a bad version of itself).
///
/// Both see the same labels; the weak one is smaller, or trained for less long. Hand it to
/// [`ClassifierFree`](crate::ClassifierFree), which owns the formula, the scale and the channels.
#[derive(Clone, Copy, Debug)]
pub struct Autoguidance<S, W> {
    strong: S,
    weak: W,
}

impl<S: Denoiser, W: Denoiser> Autoguidance<S, W> {
    /// `strong` is guided away from `weak`. Both give the same channels for the same samples.
    pub fn new(strong: S, weak: W) -> Self {
        Self { strong, weak }
    }
}

impl<S: Denoiser, W: Denoiser> ConditionalDenoiser for Autoguidance<S, W> {
    fn conditional(&self, x: &Tensor, t: Timestep) -> Result<Tensor, DenoiserError> {
        self.strong.predict(x, t)
    }

    fn both(&self, x: &Tensor, t: Timestep) -> Result<Branches, DenoiserError> {
        Ok(Branches { conditional: self.strong.predict(x, t)?, unconditional: self.weak.predict(x, t)? })
    }

    /// The strong one's: what a classifier says of the weak one moves nothing.
    fn log_prob_gradient(&self, x: &Tensor, t: Timestep) -> Result<Option<Tensor>, DenoiserError> {
        self.strong.log_prob_gradient(x, t)
    }
}
