//! Pictures and statistics on disk.

mod notes;
mod npy;
mod npz;
mod pictures;
mod statistics;

pub use notes::StatisticsNotes;
pub use pictures::{Fit, PictureReader, Pictures};
pub use statistics::Statistics;
#[cfg(test)]
pub(crate) use statistics::{npy_of, zip};
