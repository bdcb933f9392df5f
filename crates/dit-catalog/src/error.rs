use std::io;
use std::path::PathBuf;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be found by its name. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest cannot be opened.
    #[error("{}: the manifest cannot be read", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The manifest is not JSON, or lacks a key, or has one too many.
    #[error("{origin}: not a manifest of checkpoints: {source}")]
    Parse {
        /// The manifest.
        origin: String,
        /// The reason, with line and column.
        source: serde_json::Error,
    },
    /// The manifest is well formed but contradicts itself; everything wrong is listed.
    #[error("{origin}: {}", problems.join("\n  "))]
    Invalid {
        /// The manifest.
        origin: String,
        /// One sentence each.
        problems: Vec<String>,
    },
    /// No checkpoint is called so.
    #[error("no checkpoint is called `{name}`{}; known are: {}", did_you_mean(near), known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Near names, the nearest first.
        near: Vec<String>,
        /// All names.
        known: Vec<String>,
    },
    /// A checkpoint that is known, but is not there.
    #[error("checkpoint `{name}` is not there: {} is missing\n  help: {remedy}", missing.display())]
    Missing {
        /// Its name.
        name: String,
        /// The first file that is missing.
        missing: PathBuf,
        /// The exact command that brings it.
        remedy: String,
    },
    /// No folder of weights can be found.
    #[error(
        "no folder of weights: neither this folder, nor the program's, nor any above them holds weights/manifest.json\n  \
         help: set DIT_WEIGHTS_DIR to that folder (fetch-weights also takes --dir), or pass a path instead of a name"
    )]
    NoWeightsDir,
    /// The current folder is unknown (it was removed, perhaps).
    #[error("the current folder cannot be determined; change to one that exists")]
    CurrentDir(#[source] io::Error),
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!(" (did you mean `{}`?)", near.join("` or `")),
    }
}
