use crate::error::{Error, Result};

/// Channels of every picture: red, green, blue.
const CHANNELS: usize = 3;
/// The longest side that the PNG format can hold.
const LONGEST_SIDE: u32 = i32::MAX as u32;

/// An 8-bit RGB picture.
///
/// Invariant: each side is 1 to 2³¹ − 1 pixels, and there are exactly 3 × height × width bytes, row by row from the
/// top left, channels innermost (HWC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture from bytes in HWC order.
    ///
    /// # Errors
    /// [`Error::Size`] for an impossible side, [`Error::Length`] if `rgb` is not 3 × height × width long.
    pub fn from_rgb(rgb: Vec<u8>, width: u32, height: u32) -> Result<Self> {
        check_shape(rgb.len(), width, height)?;
        Ok(Self { width, height, rgb })
    }

    /// A picture from a decoder's output, quantised by [`quantize`].
    ///
    /// # Shapes
    /// `values` is (3, height, width), row-major, nominally within [−1, 1]; one picture of an (N, 3, H, W) batch is
    /// such a slice.
    ///
    /// # Errors
    /// [`Error::NotANumber`] naming the first NaN; [`Error::Size`] and [`Error::Length`] as in
    /// [`from_rgb`](Self::from_rgb).
    pub fn from_chw(values: &[f32], width: u32, height: u32) -> Result<Self> {
        check_shape(values.len(), width, height)?;
        let columns = width as usize;
        let area = values.len() / CHANNELS;
        let mut rgb = vec![0; values.len()];
        for (channel, plane) in values.chunks_exact(area).enumerate() {
            let slots = rgb.iter_mut().skip(channel).step_by(CHANNELS);
            for (at, (slot, &value)) in slots.zip(plane).enumerate() {
                *slot =
                    quantize(value).ok_or(Error::NotANumber { channel, row: at / columns, column: at % columns })?;
            }
        }
        Ok(Self { width, height, rgb })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes: (height, width, 3), row-major.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Width and height.
    pub(crate) fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }
}

/// One value in [−1, 1] as a byte: trunc(clamp(127.5·x + 128, 0, 255)), in single precision.
///
/// This is how the samples behind the published FID figures were quantised. It differs from rounding: −1 becomes 0
/// (0.5 truncated), 0 becomes 128, and everything from 127/127.5 up becomes 255. Infinities saturate. `None` for NaN, which a
/// plain cast would turn into a silent black.
pub fn quantize(value: f32) -> Option<u8> {
    if value.is_nan() {
        return None;
    }
    // Two roundings, as the reference has them; a fused multiply-add would differ in the last bit.
    let level = 127.5 * value + 128.0;
    Some(level.clamp(0.0, 255.0) as u8)
}

fn check_shape(found: usize, width: u32, height: u32) -> Result<()> {
    if !(1..=LONGEST_SIDE).contains(&width) || !(1..=LONGEST_SIDE).contains(&height) {
        return Err(Error::Size { width: width.into(), height: height.into() });
    }
    // Each factor is below 2³¹: the area fits 62 bits, thrice that fits 64.
    let expected = u64::from(width) * u64::from(height) * CHANNELS as u64;
    if found as u64 != expected {
        return Err(Error::Length { width, height, expected, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f32, expected: Option<u8>) {
        assert_eq!(quantize(value), expected, "{value}");
    }

    #[test]
    fn quantisation_truncates_and_saturates() {
        check(-1.0, Some(0));
        check(-0.9961, Some(0));
        check(-0.996, Some(1)); // 127.5 × −0.996 + 128 = 1.01
        check(-1.0e-7, Some(127)); // just below 128
        check(0.0, Some(128));
        check(0.5, Some(191)); // 191.75
        check(0.996, Some(254)); // 254.99
        check(0.9961, Some(255));
        check(1.0, Some(255));
        check(7.0, Some(255));
        check(-7.0, Some(0));
        check(f32::INFINITY, Some(255));
        check(f32::NEG_INFINITY, Some(0));
        check(f32::NAN, None);
    }

    #[test]
    fn channels_become_innermost() {
        let level = |byte: f32| (byte - 127.5) / 127.5; // the middle of the byte's interval
        let chw: Vec<f32> = (0..18).map(|byte| level(byte as f32)).collect(); // (3, 2, 3)
        let picture = Picture::from_chw(&chw, 3, 2).unwrap();
        assert_eq!(picture.rgb(), [0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 4, 10, 16, 5, 11, 17]);
        assert_eq!((picture.width(), picture.height()), (3, 2));
    }

    #[test]
    fn nan_is_located() {
        let mut chw = vec![0.0; 3 * 4 * 5];
        chw[20 + 2 * 5 + 3] = f32::NAN;
        let error = Picture::from_chw(&chw, 5, 4).unwrap_err();
        assert!(matches!(error, Error::NotANumber { channel: 1, row: 2, column: 3 }), "{error}");
    }

    #[track_caller]
    fn check_refused(length: usize, width: u32, height: u32, expected: &str) {
        let error = Picture::from_rgb(vec![0; length], width, height).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let error = Picture::from_chw(&vec![0.0; length], width, height).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn impossible_shapes_are_refused() {
        check_refused(0, 0, 0, "cannot be 0×0");
        check_refused(0, 4, 0, "cannot be 4×0");
        check_refused(11, 2, 2, "has 12 values, not 11");
        check_refused(16, 2, 2, "has 12 values, not 16");
        check_refused(3, u32::MAX, 1, "cannot be 4294967295×1");
        check_refused(0, 1 << 30, 1 << 30, "not 0");
    }
}
