use std::fmt;

use dit_torch::lists;
use tch::Tensor;

use crate::TrainError;

/// Above this share of the initial weights, an average is not yet one of the trained weights.
const LAGGING_SHARE: f64 = 0.01;

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
        Ok(lists::lerp(&mut self.weights, weights, 1.0 - self.decay)?)
    }
}

/// A moving average that holds a visible part of the initial weights: what is sampled from it is noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmaLag {
    /// Its decay.
    pub decay: f64,
    /// After how many steps.
    pub steps: u64,
    /// The share of the initial weights that is left: decay^steps.
    pub initial_share: f64,
}

impl EmaLag {
    /// That of the average with this decay after so many steps; none where too little of the initial weights is left to be seen.
    pub(crate) fn after(steps: u64, decay: f64) -> Option<Self> {
        let initial_share = decay.powf(steps as f64);
        (initial_share > LAGGING_SHARE).then_some(Self { decay, steps, initial_share })
    }
}

impl fmt::Display for EmaLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decay, steps, initial_share } = self;
        let percent = 100.0 * initial_share;
        write!(
            f,
            "after {steps} steps the average with decay {decay} still holds {percent:.1} % of the initial weights"
        )
    }
}
