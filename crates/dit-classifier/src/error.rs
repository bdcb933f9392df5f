use std::path::PathBuf;

/// What can go wrong with a classifier, its file or its training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A geometry that no network has.
    #[error(transparent)]
    Config(#[from] dit_config::ConfigError),

    /// A safetensors file of something else.
    #[error(
        "{} is not a classifier of noised latents: {problem}\n  help: `dit-cli train-classifier` makes one",
        .path.display()
    )]
    NotAClassifier {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong in it.
        problem: String,
    },

    /// Options that cannot be trained with.
    #[error("{0}")]
    Options(String),

    /// The state of a run that was begun otherwise.
    #[error(
        "{} is the state of another run:\n{}\n  help: continue with what it was begun with, or remove it to begin anew",
        .path.display(), .differences.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    )]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// What it has, and what was asked for.
        differences: Vec<String>,
    },

    /// The loss became NaN or infinite.
    #[error(
        "the loss is {loss} at step {step}; the learning rate is too high\n  help: remove the state file and begin anew with a lower learning rate"
    )]
    NonFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
    },

    /// A gradient became NaN or infinite.
    #[error(
        "a gradient is NaN or infinite at step {step}; the learning rate is too high\n  help: remove the state file and begin anew with a lower learning rate"
    )]
    NonFiniteGradient {
        /// The step.
        step: u64,
    },

    /// Reading or writing weights failed.
    #[error(transparent)]
    Weights(Box<dit_weights::Error>),

    /// Reading latents failed.
    #[cfg(feature = "training")]
    #[error(transparent)]
    Data(Box<dit_data::Error>),

    /// Noising failed.
    #[error(transparent)]
    Diffusion(#[from] dit_diffusion::Error),

    /// The optimizer failed.
    #[error(transparent)]
    Ops(#[from] dit_ops::OpsError),

    /// libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// Whether a step that failed so was not begun to be taken: weights, optimizer and order of latents are those before.
    pub fn is_before_the_step(&self) -> bool {
        !matches!(self, Self::Ops(_))
    }

    /// Whether a file could not be written, for want of space say, which may pass.
    pub fn is_refused_file(&self) -> bool {
        matches!(self, Self::Weights(error) if matches!(**error, dit_weights::Error::Write(_)))
    }
}

// Boxed: they would make every result of this crate as large as themselves.

impl From<dit_weights::Error> for Error {
    fn from(error: dit_weights::Error) -> Self {
        Self::Weights(Box::new(error))
    }
}

#[cfg(feature = "training")]
impl From<dit_data::Error> for Error {
    fn from(error: dit_data::Error) -> Self {
        Self::Data(Box::new(error))
    }
}
