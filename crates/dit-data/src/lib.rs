//! Pictures to latents: the original's image preparation, exactly.
//!
//! No libtorch: worker threads that decode and crop never touch it.
#![deny(missing_docs)]

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
pub use source::{Record, Source, SourceKind};
