use tch::Tensor;

use crate::{Step, StepIndex};

/// A prediction made earlier in a walk.
#[derive(Debug)]
pub(super) struct Past {
    index: StepIndex,
    /// λ of the step it was made at.
    pub lambda: f64,
    /// The estimate of x₀: (N, C, H, W).
    pub x0: Tensor,
}

impl Clone for Past {
    fn clone(&self) -> Self {
        // Nobody writes to a prediction: both may have it.
        Self { index: self.index, lambda: self.lambda, x0: self.x0.shallow_clone() }
    }
}

/// The last predictions of a walk, newest first, for multistep solvers.
///
/// Invariant: they belong to neighbouring steps, so that a step taken by itself never sees the memory of another place.
#[derive(Clone, Debug)]
pub(super) struct History {
    capacity: usize,
    past: Vec<Past>,
}

impl History {
    /// Remembers so many predictions.
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, past: Vec::new() }
    }

    pub fn clear(&mut self) {
        self.past.clear();
    }

    /// The newest `count` predictions, or as many as there are, of the steps right before `step` on the way to x₀.
    pub fn before(&self, step: &Step, count: usize) -> &[Past] {
        match self.past.first() {
            Some(newest) if newest.index.0 == step.index().0 + 1 => self.past.get(..count).unwrap_or(&self.past),
            _ => &[],
        }
    }

    /// Adds the prediction of the step that is being taken.
    pub fn push(&mut self, step: &Step, x0: Tensor) {
        if self.before(step, 1).is_empty() {
            self.past.clear();
        }
        self.past.insert(0, Past { index: step.index(), lambda: step.lambda(), x0 });
        self.past.truncate(self.capacity);
    }
}
