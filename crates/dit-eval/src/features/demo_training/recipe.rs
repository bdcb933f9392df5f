//! What a training is told.

use serde::{Deserialize, Serialize};

use super::super::demo::SIDE;
use crate::Error;

/// How the classifier is trained; as a TOML file, `configs/features.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureRecipe {
    /// Passes over the training set.
    pub epochs: u32,
    /// Pictures a step.
    pub batch_size: usize,
    /// The highest learning rate of AdamW: reached by a line over the first tenth of the steps, left by a cosine to 0.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Pictures are moved by up to so many pixels in each direction, and mirrored half the time.
    pub largest_shift: u32,
    /// Of weights, order and augmentation.
    pub seed: u64,
}

impl FeatureRecipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the line, also for unknown keys and values out of range.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let recipe: Self = toml::from_str(text).map_err(|error| Error::Recipe { problem: error.to_string() })?;
        let in_range = recipe.epochs > 0
            && recipe.batch_size > 1
            && recipe.learning_rate > 0.0
            && recipe.learning_rate.is_finite()
            && recipe.weight_decay >= 0.0
            && (recipe.largest_shift as usize) < SIDE / 2;
        if !in_range {
            let problem = "epochs and learning_rate must be above 0, batch_size above 1, weight_decay at least 0, largest_shift below 16";
            return Err(Error::Recipe { problem: problem.to_owned() });
        }
        Ok(recipe)
    }
}

impl FeatureRecipe {
    /// The learning rate of a step, counted from 0, of `total`.
    pub(super) fn rate(&self, step: usize, total: usize) -> f64 {
        self.learning_rate * rate(step, total)
    }
}

/// The learning rate as a fraction of the highest: linear up over the first tenth, then half a cosine down to 0.
fn rate(step: usize, total: usize) -> f64 {
    let warm = (total / 10).max(1);
    if step < warm {
        return (step + 1) as f64 / warm as f64;
    }
    let done = (step - warm) as f64 / (total - warm).max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_checked() {
        let good = "epochs = 1\nbatch_size = 2\nlearning_rate = 0.1\nweight_decay = 0.0\nlargest_shift = 2\nseed = 1\n";
        assert!(FeatureRecipe::from_toml(good).is_ok());
        for (from, to) in [
            ("epochs = 1", "epochs = 0"),
            ("batch_size = 2", "batch_size = 1"),
            ("learning_rate = 0.1", "learning_rate = nan"),
            ("weight_decay = 0.0", "weight_decay = -1.0"),
            ("largest_shift = 2", "largest_shift = 16"),
            ("seed = 1", "seed = 1\nunknown = 2"),
        ] {
            assert!(matches!(FeatureRecipe::from_toml(&good.replace(from, to)), Err(Error::Recipe { .. })), "{to}");
        }
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|step| rate(step, 100)).collect();
        assert!(rates[..10].is_sorted() && rates[10..].is_sorted_by(|a, b| a >= b));
        assert_eq!((rates[9], rates[10]), (1.0, 1.0));
        assert!(rates[99] < 0.001);
    }
}
