//! Labelled pictures, to the byte as the original's Python would see them, and latents on disk.
//!
//! [`Source`] finds labelled pictures wherever they are kept: folders, tars, parquet, IDX; [`Unlabelled`] finds those without
//! classes. [`decode`] turns their bytes into RGB and [`adm_crop`] into a square, each exactly as Pillow does. [`shard`] keeps what
//! an encoder makes of them and reads it back.
//!
//! ```
//! use dit_data::{Limits, adm_crop, decode};
//!
//! let file = include_bytes!("../tests/data/pictures/420.jpg");
//! let picture = decode(file, &Limits::default())?;
//! assert_eq!((picture.width(), picture.height()), (35, 27));
//! let cropped = adm_crop(picture, 16)?;
//! assert_eq!(cropped.pixels().len(), 16 * 16 * 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it never does: link libtorch (worker threads that decode and crop never touch it), unpack an archive to disk, trust a
//! file's name or its header's promises, or print.
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod crop;
mod decode;
mod error;
mod resample;
mod rgb;
pub mod shard;
mod simd;
mod source;

pub use crop::adm_crop;
pub use decode::{DecodeError, Encoded, Format, Limits, decode};
pub use error::Error;
pub use rgb::Rgb;
pub use shard::CropRecipe;
pub use source::{Record, Source, SourceKind, Unlabelled};
