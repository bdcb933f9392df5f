//! Encoded bytes to RGB, as Pillow's `Image.open(…).convert("RGB")` gives them.

mod jpeg;
mod png;
mod webp;

use std::fmt;

use crate::Rgb;

/// Bounds on what a picture may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most pixels (columns · rows) that a picture may have, judged from its header, before memory is taken.
    pub max_pixels: u64,
}

impl Default for Limits {
    /// 178,956,970 pixels: beyond that Pillow refuses too, calling it a decompression bomb.
    fn default() -> Self {
        Self { max_pixels: (1 << 30) / 4 / 3 * 2 }
    }
}

/// The formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG, 8 bits, baseline or progressive.
    Jpeg,
    /// PNG of any colour type and depth.
    Png,
    /// WebP, lossy or lossless.
    WebP,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
        })
    }
}

/// The beginning of what is no picture: as text where it is that, as a page that was downloaded in a picture's place.
fn described(beginning: &[u8]) -> String {
    match beginning {
        [] => "is empty".to_owned(),
        text if text.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            format!("begins with the text \"{}\"", text.escape_ascii())
        }
        bytes => format!("begins with the bytes {bytes:02x?}"),
    }
}

/// Why a picture cannot be decoded. None of these stops a run: the picture is skipped and recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first bytes belong to no known picture format.
    #[error("not a picture: it {}", described(beginning))]
    Unknown {
        /// The first bytes.
        beginning: Vec<u8>,
    },

    /// A format, or a variant of one, that is not decoded.
    #[error("{what} is not supported; convert it to PNG or JPEG")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },

    /// The data end too early.
    #[error("truncated {format}")]
    Truncated {
        /// What the data are.
        format: Format,
    },

    /// The data contradict themselves.
    #[error("damaged {format}: {what}")]
    Corrupt {
        /// What the data are.
        format: Format,
        /// What is wrong.
        what: String,
    },

    /// Raw levels that do not fill their picture, or a picture without pixels.
    #[error("{levels} levels are not a grey picture of {width} x {height} pixels")]
    Shape {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Levels there are.
        levels: usize,
    },

    /// More pixels than [`Limits`] allow.
    #[error("{width} x {height} pixels are more than the limit of {limit}")]
    TooLarge {
        /// Columns.
        width: u64,
        /// Rows.
        height: u64,
        /// The most pixels allowed.
        limit: u64,
    },
}

/// A picture as a source holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoded {
    /// A picture file: JPEG, PNG or WebP, whatever its name says.
    File(Vec<u8>),
    /// A raw grey picture, as in IDX files.
    Grey {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Levels (height, width).
        levels: Vec<u8>,
    },
}

impl Encoded {
    /// The picture.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode(&self, limits: &Limits) -> Result<Rgb, DecodeError> {
        match self {
            Self::File(bytes) => decode(bytes, limits),
            Self::Grey { width, height, levels } => {
                check_pixels(*width as u64, *height as u64, limits)?;
                let pixels = levels.iter().flat_map(|&level| [level; 3]).collect();
                let shape = |_| DecodeError::Shape { width: *width, height: *height, levels: levels.len() };
                Rgb::new(*width, *height, pixels).map_err(shape)
            }
        }
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        match self {
            Self::File(bytes) => bytes.len(),
            Self::Grey { levels, .. } => levels.len(),
        }
    }

    /// Whether there is nothing to decode.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The picture in `bytes`: what Pillow 12 gives as `Image.open(file).convert("RGB")`, to the byte.
///
/// The content decides what it is, not a name. JPEGs are decoded as libjpeg-turbo does by default; grey, CMYK and YCCK ones
/// become RGB as Pillow makes them. Alpha is dropped, not blended. A grey PNG of 16 bits saturates at 255, as in Pillow; other
/// PNGs of 16 bits keep the upper eight. Of an animation the first frame is taken. EXIF orientation and colour profiles are ignored,
/// as the original does.
///
/// ```
/// use dit_data::{DecodeError, Limits, decode};
/// let error = decode(b"GIF89a", &Limits::default()).unwrap_err();
/// assert!(matches!(error, DecodeError::Unsupported { what: "a GIF" }));
/// ```
///
/// # Errors
/// [`DecodeError`], for whatever bytes: this never panics, and takes no more memory than [`Limits`] allow for.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Rgb, DecodeError> {
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => jpeg::decode(bytes, limits),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => png::decode(bytes, limits),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp::decode(bytes, limits),
        _ => Err(unsupported(bytes)),
    }
}

fn unsupported(bytes: &[u8]) -> DecodeError {
    let what = match bytes {
        [b'G', b'I', b'F', b'8', ..] => "a GIF",
        [b'B', b'M', ..] => "a BMP",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF",
        [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] => "a PNM",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF or HEIF",
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => "a JPEG XL",
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => "a JPEG 2000",
        _ => return DecodeError::Unknown { beginning: bytes.iter().take(8).copied().collect() },
    };
    DecodeError::Unsupported { what }
}

/// # Errors
/// [`DecodeError::TooLarge`].
fn check_pixels(width: u64, height: u64, limits: &Limits) -> Result<(), DecodeError> {
    if width.saturating_mul(height) > limits.max_pixels {
        return Err(DecodeError::TooLarge { width, height, limit: limits.max_pixels });
    }
    Ok(())
}
