use std::{io, path::PathBuf};

use tch::TchError;

use crate::{NonFiniteReport, ObserverError, Stage};

/// Why a run cannot begin, continue or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The run folder holds a run already.
    #[error("{} holds a run already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to continue.
    #[error("{} holds no run that could be continued: {problem}", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// Another process trains in the folder.
    #[error("another process is training in {}\n  help: wait for it to end, or choose another folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The recipe is not the one that the run began with.
    #[error(
        "the recipe is not the one that the run in {} began with:\n  {}\n  help: continue with the recipe of the run, or begin another run in another folder; what may change is how long it is (but under a cosine, which ends at the last step), and what is kept and shown of it",
        path.display(), .differences.join("\n  ")
    )]
    Recipe {
        /// The run's folder.
        path: PathBuf,
        /// Each key that differs, with both values.
        differences: Vec<String>,
    },
    /// The recipe of a checkpoint, which some other version wrote, cannot be read.
    #[error(
        "the recipe in {}, which version {version} of this program wrote (this is {}), cannot be read: {source}\n  help: continue with the version that wrote it",
        path.display(), env!("CARGO_PKG_VERSION")
    )]
    StoredRecipe {
        /// The file.
        path: PathBuf,
        /// Who wrote it.
        version: String,
        /// What is wrong.
        source: dit_recipe::Error,
    },
    /// The recipe asks for what cannot be done, or not with these data.
    #[error("the recipe cannot be followed: {}\n  help: {help}", .problems.join("; "))]
    Unfit {
        /// Each contradiction.
        problems: Vec<String>,
        /// What can be done about them.
        help: &'static str,
    },
    /// A checkpoint is not what was written.
    #[error("the checkpoint {} is damaged: {problem}\n  help: remove that folder; the run then continues from the one before it, if there is one", path.display())]
    Damaged {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A checkpoint of a later version of this program.
    #[error(
        "{} was written by a newer version of this program: it is of format {found}, and this version knows formats up to {newest}\n  help: continue with a version as new as the one that wrote it; the checkpoint is sound",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest that is read.
        newest: u32,
    },
    /// Where a checkpoint is to be, something else is.
    #[error(
        "the checkpoint {} cannot be written: something of that name is there already\n  help: move it away; a run that ended for it can be resumed",
        path.display()
    )]
    Taken {
        /// The checkpoint's folder.
        path: PathBuf,
    },
    /// A value was NaN or infinite, and the policy says to stop, or the remedy did not help.
    #[error("{report}{after}\n  help: {}", help_for_non_finite(report, after))]
    NonFinite {
        /// Where.
        report: Box<NonFiniteReport>,
        /// What was tried before.
        after: String,
    },
    /// The system refused something with a file.
    #[error("cannot {action} {}: {source}\n  help: {}", path.display(), help_for_file(action))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] dit_files::WriteError),
    /// A file of tensors could not be read or written.
    #[error(transparent)]
    Tensors(Box<dit_weights::Error>),
    /// The recipe makes no sense, or not with these data.
    #[error(transparent)]
    NotARecipe(#[from] dit_recipe::Error),
    /// The latents cannot be used.
    #[error(transparent)]
    Data(Box<dit_data::Error>),
    /// The diffusion process refused.
    #[error(transparent)]
    Diffusion(#[from] dit_diffusion::Error),
    /// The model cannot be made.
    #[error(transparent)]
    Model(Box<dit_model::ModelError>),
    /// The configuration of the model makes no sense.
    #[error(transparent)]
    Config(#[from] dit_model::ConfigError),
    /// libtorch refused an operation, for want of memory for example.
    #[error(
        "libtorch refused an operation\n  help: if memory is short, begin again with train.accumulate=2 (or more), or train.checkpoint_activations=true; a run that began without keeps its memory"
    )]
    Torch(#[from] TchError),
    /// The optimizer's operator failed.
    #[error(transparent)]
    Ops(#[from] dit_ops::OpsError),
    /// Whoever watches the run ended it.
    #[error("{0}")]
    Observer(ObserverError),
    /// The system has no thread left for reading data.
    #[error("cannot start the thread that reads the latents: {source}")]
    Thread {
        /// Why not.
        source: io::Error,
    },
    /// The thread that reads data ended without a word.
    #[error(
        "the thread that reads the latents ended unexpectedly\n  help: this is a defect; please report it with the log"
    )]
    FeedEnded,
}

/// What can be done where the system refuses `action` on a file of the run.
fn help_for_file(action: &str) -> &'static str {
    match action {
        "lock" => {
            "check that you may write into the run's folder, and that its file system knows locks (some network file systems do not); else choose a folder on another one"
        }
        "write" => "check that the disk has room and the run's folder can be written to; then resume the run",
        _ => "check that the run's folder and all in it belong to you and can be changed",
    }
}

/// What can be done about a value that is not finite, where `after` was tried.
fn help_for_non_finite(report: &NonFiniteReport, after: &str) -> &'static str {
    match (report.stage, after.is_empty()) {
        (Stage::Data, _) => {
            "find the damaged file with dit-cli precompute-latents --out DATA --verify, and make it again; resumed with guardian.on_non_finite=skip, the run leaves steps with such records out"
        }
        (Stage::Weights, _) => {
            "the weights are beyond repair: continue from an older checkpoint by removing the newest, or begin another run with a lower learning rate, warm-up or gradient clipping"
        }
        (_, true) => {
            "the weights of the step before are kept; resumed with guardian.on_non_finite=skip, the run goes on without such steps, with roll-back from the checkpoint before; if it comes again, begin another run with a lower learning rate, warm-up, gradient clipping, or fp32 in place of bf16"
        }
        (_, false) => {
            "the checkpoints are intact; begin another run with a lower learning rate, warm-up, gradient clipping, or fp32 in place of bf16"
        }
    }
}

impl TrainError {
    /// Whether a file could not be written, which may pass.
    pub(crate) fn is_refused_file(&self) -> bool {
        match self {
            Self::Write(_) | Self::Io { .. } => true,
            Self::Tensors(error) => matches!(**error, dit_weights::Error::Write(_)),
            _ => false,
        }
    }

    /// Whether it is about room on the disk.
    pub fn is_disk_full(&self) -> bool {
        let full = |error: &dit_files::WriteError| matches!(error, dit_files::WriteError::DiskFull { .. });
        match self {
            Self::Write(error) => full(error),
            Self::Tensors(error) => matches!(&**error, dit_weights::Error::Write(error) if full(error)),
            _ => false,
        }
    }
}

// Boxed: the largest of them would make every result of this crate as large as itself.

impl From<dit_weights::Error> for TrainError {
    fn from(error: dit_weights::Error) -> Self {
        Self::Tensors(Box::new(error))
    }
}

impl From<dit_data::Error> for TrainError {
    fn from(error: dit_data::Error) -> Self {
        Self::Data(Box::new(error))
    }
}

impl From<dit_model::ModelError> for TrainError {
    fn from(error: dit_model::ModelError) -> Self {
        Self::Model(Box::new(error))
    }
}
