//! JPEG (ITU T.81: baseline, extended and progressive Huffman coding, 8 bits) decoded to the byte as libjpeg-turbo does with
//! its default settings, which are Pillow's: "islow" inverse DCT, "fancy" upsampling.
//!
//! No other decoder in Rust gives these bytes, and latents of a data set should not depend on who decoded it. What libjpeg
//! forgives (a marker too early, an impossible code, stray bytes), it forgives with the same pixels; data that end too early are
//! an error, as they are for Pillow. Arithmetic coding, lossless and 12-bit files are refused. One thing differs: a complete
//! progressive file that never refines its lowest frequencies is not smoothed across blocks.

mod bits;
mod frame;
mod huffman;
mod idct;
mod markers;
mod output;
mod progressive;
mod scan;
mod upsample;

use crate::Rgb;
use crate::decode::{DecodeError, Format, Limits};

/// Why a JPEG cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The data end too early.
    Truncated,
    /// What is wrong.
    Corrupt(&'static str),
    /// What is not supported.
    Unsupported(&'static str),
    /// Columns and rows, beyond the limit.
    TooLarge(u64, u64),
}

impl Fault {
    fn explain(self, limits: &Limits) -> DecodeError {
        let format = Format::Jpeg;
        match self {
            Self::Truncated => DecodeError::Truncated { format },
            Self::Corrupt(what) => DecodeError::Corrupt { format, what: what.into() },
            Self::Unsupported(what) => DecodeError::Unsupported { what },
            Self::TooLarge(width, height) => DecodeError::TooLarge { width, height, limit: limits.max_pixels },
        }
    }
}

/// The picture in `data`, which begins with a JPEG's first bytes.
pub(super) fn decode(data: &[u8], limits: &Limits) -> Result<Rgb, DecodeError> {
    let decoded = markers::decode(data, limits.max_pixels).and_then(|frame| output::rgb(&frame));
    decoded.map_err(|fault| fault.explain(limits))
}
