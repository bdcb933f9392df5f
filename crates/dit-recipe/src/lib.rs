//! Training recipes: read, resolved, checked, printed; and what a run will cost.
//!
//! A [`Recipe`] is a TOML file of a few sections. What it leaves out is the original's recipe (Peebles & Xie 2023): AdamW at 1e-4
//! without decay, batches of 256, EMA 0.9999, label dropout 0.1, squared error plus variational bound, uniform timesteps, random
//! flips, posterior draws. An unknown key is an error that names the nearest known one, and so is a key that would do nothing.
//!
//! ```
//! use dit_recipe::Recipe;
//!
//! let recipe = Recipe::from_toml("[model]\nname = \"DiT-S/2\"", &["optim.lr=2e-4".to_owned()])?;
//! assert_eq!(recipe.optim.lr, 2e-4);
//! assert_eq!(recipe.train.batch_size, 256);
//! assert_eq!(Recipe::from_toml(&recipe.to_toml(), &[])?, recipe);
//!
//! let error = Recipe::from_toml("[optim]\nwarmup = 10", &[]).unwrap_err();
//! assert!(error.to_string().contains("did you mean warmup_steps?"));
//! # Ok::<(), dit_recipe::Error>(())
//! ```
//!
//! What it never does: link libtorch, read a file, or look at the clock.
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod check;
mod error;
mod plan;
mod recipe;
mod section;
mod sections;
mod values;

pub use dit_config::{NoiseScheduleKind, Predict, SigmaKind};
pub use error::{Error, Misfit, Place, Problem};
pub use plan::{Memory, Plan};
pub use recipe::{DataShape, Difference, Recipe};
pub use sections::{
    DataSection, DiffusionSection, EmaSection, EvalSection, GuardianSection, ModelSection, OptimSection,
    SamplesSection, Sections, TrainSection, ValidationSection,
};
pub use values::{
    ClipNorm, Every, Flip, HeldOut, LogitNormal, Loss, LrSchedule, ModelName, NonFinitePolicy, Posterior, Precision,
    Timesteps, Weighting,
};
