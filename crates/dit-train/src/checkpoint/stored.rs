use std::path::Path;

use dit_recipe::Recipe;

use super::{State, ema_file};
use crate::{EmaLag, TrainError};

/// What a checkpoint of a run says of its files of weights, for those who read them and do not train.
#[derive(Debug, Clone)]
pub struct StoredWeights {
    state: State,
    recipe: Recipe,
}

impl StoredWeights {
    /// Reads what the checkpoint in `folder` says; the weights are not looked at.
    ///
    /// # Errors
    /// [`TrainError::Damaged`] where it is not what was written; [`TrainError::Format`], [`TrainError::StoredRecipe`].
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let state = State::read(folder)?;
        let recipe = state.recipe(folder)?;
        Ok(Self { state, recipe })
    }

    /// The name of the first average's file: what is sampled from.
    pub fn first_average(&self) -> Option<String> {
        self.recipe.ema.decays.first().map(|decay| ema_file(*decay))
    }

    /// The SHA-256 that the file `name` had when it was written; none where the run wrote no such file.
    pub fn sha256_of(&self, name: &str) -> Option<&str> {
        self.state.files.get(name).map(String::as_str)
    }

    /// Whether the file `name` is of an average that holds a visible part of the initial weights.
    pub fn lag_of(&self, name: &str) -> Option<EmaLag> {
        let decay = *self.recipe.ema.decays.iter().find(|decay| ema_file(**decay) == name)?;
        // Steps that were skipped moved no average.
        EmaLag::after(self.state.updates, decay)
    }
}
