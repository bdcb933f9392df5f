//! Checkpoints on disk: `RUN/checkpoints/step-NNNNNNNN/`, whole or not at all.
//!
//! ```text
//! model.safetensors       the weights, fp32, with the model's configuration
//! ema-0.9999.safetensors  one of each average, likewise
//! optimizer.safetensors   both moments of every parameter; the timestep sampler's history where there is one
//! state.json              step, position in the data, recipe, the SHA-256 of the three, and its own
//! ```

mod folder;
mod load;
mod machine;
mod save;
mod state;
mod stored;

pub(crate) use folder::{CheckpointFolder, Rotation};
pub(crate) use load::load;
pub(crate) use machine::Machine;
pub(crate) use save::{clear, save, settle};
pub(crate) use state::{DataIdentity, Progress, State};
pub use stored::StoredWeights;

/// The weights' file.
const MODEL: &str = "model.safetensors";
/// The optimizer's file.
const OPTIMIZER: &str = "optimizer.safetensors";
/// What is not a tensor.
const STATE: &str = "state.json";
/// Before a parameter's name, in the optimizer's file.
const MEAN: &str = "exp_avg.";
const SQUARE: &str = "exp_avg_sq.";
/// The timestep sampler's history, in the optimizer's file.
const HISTORY_LOSSES: &str = "timesteps.losses";
const HISTORY_COUNTS: &str = "timesteps.counts";

/// The file of the average of this decay.
fn ema_file(decay: f64) -> String {
    format!("ema-{decay}.safetensors")
}
