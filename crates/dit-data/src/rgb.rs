use crate::Error;

/// An 8-bit RGB picture, row-major, channels last.
///
/// Invariant: both sides are at least 1, and there are width · height · 3 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Rgb {
    /// A picture of `pixels` (H, W, 3).
    ///
    /// # Errors
    /// [`Error::PictureShape`] unless both sides are at least 1 and `pixels` has exactly width · height · 3 bytes.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, Error> {
        let expected = width.checked_mul(height).and_then(|area| area.checked_mul(3));
        if width == 0 || height == 0 || expected != Some(pixels.len()) {
            return Err(Error::PictureShape { width, height, bytes: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// For callers in this crate that have just computed exactly these pixels.
    pub(crate) fn from_parts(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        debug_assert!(width > 0 && height > 0 && pixels.len() == width * height * 3);
        Self { width, height, pixels }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes (H, W, 3).
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}
