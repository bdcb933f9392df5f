use tch::Tensor;

use crate::TrainError;

/// An exponential moving average of the weights, fp32: average ← decay·average + (1 − decay)·weights after every step. It
/// starts as a copy, so early on it holds decay^steps of the initial weights.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    weights: Vec<Tensor>,
}

impl Ema {
    pub(crate) fn new(decay: f64, weights: &[Tensor]) -> Self {
        Self { decay, weights: weights.iter().map(|weight| weight.detach().copy()).collect() }
    }

    pub(crate) fn decay(&self) -> f64 {
        self.decay
    }

    pub(crate) fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    pub(crate) fn weights_mut(&mut self) -> &mut [Tensor] {
        &mut self.weights
    }

    pub(crate) fn update(&mut self, weights: &[Tensor]) -> Result<(), TrainError> {
        let _no_grad = tch::no_grad_guard();
        for (average, weight) in self.weights.iter_mut().zip(weights) {
            let _ = average.f_lerp_(weight, 1.0 - self.decay)?;
        }
        Ok(())
    }

    /// The share of the initial weights after `steps` steps.
    pub(crate) fn initial_share(&self, steps: u64) -> f64 {
        self.decay.powf(steps as f64)
    }
}
