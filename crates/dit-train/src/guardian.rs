//! Finding where NaN or infinity came from.

use std::fmt;

/// Where a value that is not finite was met first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonFiniteReport {
    /// The step that was being taken: steps before it, plus one.
    pub step: u64,
    /// What was looked at first and found bad.
    pub stage: Stage,
    /// The part of the network, or of the data: `blocks.3`, `x_embedder`, `latents`, `loss`.
    pub place: String,
    /// The tensor: a parameter's name in checkpoints, `output of blocks.3`, `record 17`.
    pub tensor: String,
}

/// Which of a step's stages gave the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The latents themselves.
    Data,
    /// A weight, before the step.
    Weights,
    /// The network's forward pass.
    Forward,
    /// The loss of finite outputs.
    Loss,
    /// The backward pass of a finite loss.
    Gradient,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "the data",
            Self::Weights => "a weight",
            Self::Forward => "the forward pass",
            Self::Loss => "the loss",
            Self::Gradient => "a gradient",
        })
    }
}

impl fmt::Display for NonFiniteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {} is not finite, first in {} ({})", self.step, self.stage, self.place, self.tensor)
    }
}
