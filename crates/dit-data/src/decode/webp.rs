use std::io::{Cursor, ErrorKind};

use image_webp::{DecodingError, UpsamplingMethod, WebPDecodeOptions, WebPDecoder};

use super::{DecodeError, Format, Limits, check_pixels};
use crate::Rgb;

/// The picture in `data`, which begins with WebP's signature.
pub(super) fn decode(data: &[u8], limits: &Limits) -> Result<Rgb, DecodeError> {
    // libwebp wants the whole container before it decodes anything.
    let declared = data.get(4..8).and_then(|size| size.first_chunk::<4>()).map_or(0, |size| u32::from_le_bytes(*size));
    if declared as usize > data.len() - 8 {
        return Err(DecodeError::Truncated { format: Format::WebP });
    }
    let mut options = WebPDecodeOptions::default();
    options.lossy_upsampling = UpsamplingMethod::Bilinear; // libwebp's default
    let mut decoder = WebPDecoder::new_with_options(Cursor::new(data), options).map_err(explain)?;
    let (width, height) = decoder.dimensions();
    check_pixels(u64::from(width), u64::from(height), limits)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut pixels = vec![0; width as usize * height as usize * channels];
    decoder.read_image(&mut pixels).map_err(explain)?;
    if channels == 4 {
        pixels = pixels.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    }
    Rgb::new(width as usize, height as usize, pixels)
        .map_err(|error| DecodeError::Corrupt { format: Format::WebP, what: error.to_string() })
}

fn explain(error: DecodingError) -> DecodeError {
    let format = Format::WebP;
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => DecodeError::Truncated { format },
        other => DecodeError::Corrupt { format, what: other.to_string() },
    }
}
