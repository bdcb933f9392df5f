//! Pictures and statistics on disk.

mod flat;
mod npy;
mod npz;
mod pictures;
mod statistics;

pub use pictures::{Fit, PictureReader, Pictures};
pub use statistics::Statistics;
