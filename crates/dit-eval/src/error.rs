use std::path::PathBuf;

/// Why an evaluation cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A file is not what it should be.
    #[error("{}: {problem}\n  help: {help}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        help: &'static str,
    },

    /// A picture is of a size that a feature network does not take.
    #[error("the pictures are {height} x {width}; the network `{network}` takes {takes}")]
    PictureSize {
        /// The network.
        network: String,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// What it takes.
        takes: &'static str,
    },

    /// Fewer samples than a metric that was asked for can be computed from.
    #[error(
        "{metric}: {found} {what} are too few; at least {needed} are needed\n  help: bring more, or leave the metric out"
    )]
    TooFewFor {
        /// The metric.
        metric: &'static str,
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        needed: usize,
    },

    /// Fewer samples than a number can be computed from.
    #[error("{found} {what} are too few; at least {needed} are needed")]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        needed: usize,
    },

    /// Fewer samples than a stream of them was announced to have: a number of some of them.
    #[error("{found} of {announced} samples came")]
    NotAll {
        /// How many came.
        found: usize,
        /// How many were to come.
        announced: usize,
    },

    /// Features or statistics that are NaN or infinite.
    #[error("{what} are not finite ({count} of them)\n  help: check the pictures and the network's weights")]
    NonFinite {
        /// What they are.
        what: &'static str,
        /// How many.
        count: usize,
    },

    /// Numbers that no covariance can be.
    #[error("the covariance {problem}\n  help: make the statistics again")]
    NotCovariance {
        /// What it is.
        problem: &'static str,
    },

    /// A metric that statistics do not suffice for.
    #[error("{metric} needs the reference's pictures, not only its statistics")]
    NeedsPictures {
        /// The metric.
        metric: &'static str,
    },

    /// A metric of features that there are none of.
    #[error("{metric} needs {what}")]
    NeedsFeatures {
        /// The metric.
        metric: &'static str,
        /// What is missing.
        what: &'static str,
    },

    /// Two sides of a comparison are of different widths.
    #[error(
        "the samples have {samples} features, the reference {reference}\n  help: both must come from the same network"
    )]
    Width {
        /// Of the samples.
        samples: usize,
        /// Of the reference.
        reference: usize,
    },

    /// Statistics of another network than the samples' features.
    #[error("the reference's statistics are of {statistics}, the samples' features of {network}")]
    OtherNetwork {
        /// Whose the statistics are.
        statistics: String,
        /// Whose the features are.
        network: String,
    },

    /// Features cannot be kept.
    #[error(
        "cannot keep features in {}: {}", folder.display(), source
    )]
    Cache {
        /// Where.
        folder: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The disk has no room for features.
    #[error(
        "the features of these pictures take {:.1} GB in {}, where {:.1} GB are free",
        *needed as f64 / 1e9, folder.display(), *free as f64 / 1e9
    )]
    NoRoom {
        /// Where they would be kept.
        folder: PathBuf,
        /// Bytes of those that are not there yet.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },

    /// The thread that reads pictures ended before the pictures did: a defect of this program.
    #[error(
        "the thread that reads pictures ended early; what was written until then is kept, and the same command continues"
    )]
    ReaderEnded,

    /// A tensor is not of the shape that a function takes.
    #[error("{what} of shape {actual:?}, expected {expected}")]
    TensorShape {
        /// What it is.
        what: &'static str,
        /// Its shape.
        actual: Vec<i64>,
        /// What was expected.
        expected: &'static str,
    },

    /// A file of weights that is no demo classifier.
    #[error("{} is no feature classifier of this toolkit\n  help: make one with `dit-cli train-features`", path.display())]
    NotDemo {
        /// The file.
        path: PathBuf,
    },

    /// A layer without the parameters that folding needs: a defect of this program.
    #[error("a layer has no affine parameters")]
    NotAffine,

    /// The state of a feature network's training that was begun otherwise.
    #[error(
        "{} is the state of another training: {difference}\n  help: continue with what it was begun with, or remove it to begin anew",
        path.display()
    )]
    OtherTraining {
        /// The file.
        path: PathBuf,
        /// What is different.
        difference: String,
    },

    /// A feature network that is not of this crate failed.
    #[error(transparent)]
    Network(Box<dyn std::error::Error + Send + Sync>),

    /// The optimizer failed.
    #[error(transparent)]
    Ops(#[from] dit_ops::OpsError),

    /// A training recipe.
    #[error("the recipe: {problem}")]
    Recipe {
        /// What is wrong with it.
        problem: String,
    },

    /// A picture that cannot be decoded.
    #[error("{key}: {source}\n  help: mend or remove it; every picture counts in these numbers, so none is skipped")]
    Decode {
        /// Its name.
        key: String,
        /// Why not.
        source: dit_data::DecodeError,
    },

    /// Pictures of different sizes.
    #[error(
        "{key} is {} x {}, those before it are {} x {}",
        found.0, found.1, expected.0, expected.1
    )]
    MixedSizes {
        /// The first that differs.
        key: String,
        /// Its height and width.
        found: (usize, usize),
        /// Those of the others.
        expected: (usize, usize),
    },

    /// Pictures.
    #[error(transparent)]
    Data(Box<dit_data::Error>),

    /// Weights.
    #[error(transparent)]
    Weights(Box<dit_weights::Error>),

    /// A result that cannot be written.
    #[error(transparent)]
    Write(#[from] dit_files::WriteError),

    /// An npz of pictures of another size than all are to be brought to: it is taken as it is.
    #[error(
        "{}: its pictures are {height} x {width}, not {side} x {side}; an npz is taken as it is",
        path.display()
    )]
    NotBroughtToSize {
        /// Which file.
        path: PathBuf,
        /// Height of its pictures.
        height: usize,
        /// Width of its pictures.
        width: usize,
        /// What was asked for.
        side: usize,
    },

    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl From<dit_data::Error> for Error {
    fn from(error: dit_data::Error) -> Self {
        Self::Data(Box::new(error))
    }
}

impl From<dit_weights::Error> for Error {
    fn from(error: dit_weights::Error) -> Self {
        Self::Weights(Box::new(error))
    }
}

impl Error {
    /// Whether a file could not be written, for want of space say, which may pass.
    pub fn is_refused_file(&self) -> bool {
        match self {
            Self::Write(_) => true,
            Self::Weights(error) => matches!(**error, dit_weights::Error::Write(_)),
            _ => false,
        }
    }

    /// Says which metric it was that there are too few pictures for.
    pub(crate) fn of_metric(self, metric: crate::Metric) -> Self {
        match self {
            Self::TooFew { what, found, needed } => Self::TooFewFor { metric: metric.name(), what, found, needed },
            other => other,
        }
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
