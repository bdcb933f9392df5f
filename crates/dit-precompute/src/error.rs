use std::path::PathBuf;

use dit_data::shard::Skipped;

/// Skipped records that a message lists.
const SHOWN: usize = 20;

/// What can end a run. Whatever it is, what is finished is kept, and the same command continues.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More pictures than allowed could not be decoded.
    #[error(
        "{} of {total} pictures could not be decoded; {allowed} are allowed\n  {}\n  all are listed in {}",
        skipped.len(),
        listed(skipped),
        list.display()
    )]
    TooManySkipped {
        /// All of them, in order.
        skipped: Vec<Skipped>,
        /// How many there may be.
        allowed: u64,
        /// Records of the run.
        total: u64,
        /// The file that lists them.
        list: PathBuf,
    },

    /// No room is left.
    #[error("{source}\n  help: make room and run the same command again; it continues where it stopped")]
    DiskFull {
        /// What could not be written.
        source: Box<dit_data::Error>,
    },

    /// The source or the shards.
    #[error(transparent)]
    Data(Box<dit_data::Error>),

    /// The codec.
    #[error(transparent)]
    Vae(Box<dit_vae::Error>),

    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),

    /// The codec's moments are not of the shape that the settings give.
    #[error("the codec's moments are {actual:?}, expected {expected:?}")]
    Moments {
        /// Their shape.
        actual: Vec<i64>,
        /// The shape that they should have.
        expected: Vec<i64>,
    },
}

impl From<dit_data::Error> for Error {
    fn from(error: dit_data::Error) -> Self {
        if is_full(&error) { Self::DiskFull { source: Box::new(error) } } else { Self::Data(Box::new(error)) }
    }
}

impl From<dit_vae::Error> for Error {
    fn from(error: dit_vae::Error) -> Self {
        Self::Vae(Box::new(error))
    }
}

/// Whether the cause is that a disk or a quota is full, or a file as long as it may be.
fn is_full(error: &dit_data::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        dit_data::Error::Write(error) | dit_data::Error::Tensors(dit_weights::Error::Write(error)) => {
            matches!(error, dit_files::WriteError::DiskFull { .. })
        }
        dit_data::Error::Io { source, .. } => matches!(source.kind(), FileTooLarge | QuotaExceeded | StorageFull),
        _ => false,
    }
}

fn listed(skipped: &[Skipped]) -> String {
    let mut lines: Vec<String> = skipped.iter().take(SHOWN).map(|one| format!("{}: {}", one.key, one.reason)).collect();
    if skipped.len() > SHOWN {
        lines.push(format!("… and {} more", skipped.len() - SHOWN));
    }
    lines.join("\n  ")
}
