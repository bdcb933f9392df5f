use std::io::{Cursor, ErrorKind};

use png::{BitDepth, ColorType, DecodingError, Transformations};

use super::{DecodeError, Format, Limits, check_pixels};
use crate::Rgb;

/// The picture in `data`, which begins with PNG's signature.
pub(super) fn decode(data: &[u8], limits: &Limits) -> Result<Rgb, DecodeError> {
    // The limit here is on ancillary chunks and buffers; pixels are checked below, before they are decoded.
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(data), png::Limits { bytes: 1 << 26 });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(explain)?;
    let (width, height) = reader.info().size();
    check_pixels(u64::from(width), u64::from(height), limits)?;
    let size = reader.output_buffer_size().ok_or(DecodeError::TooLarge {
        width: u64::from(width),
        height: u64::from(height),
        limit: limits.max_pixels,
    })?;
    let mut packed = vec![0; size];
    let frame = reader.next_frame(&mut packed).map_err(explain)?;
    let (width, height) = (width as usize, height as usize);
    let palette = reader.info().palette.as_deref().unwrap_or_default();
    let mut pixels = Vec::with_capacity(width * height * 3);
    for row in packed.chunks_exact(frame.line_size).take(height) {
        match (frame.color_type, frame.bit_depth) {
            (ColorType::Grayscale, BitDepth::Eight) => pixels.extend(row.iter().flat_map(|&level| [level; 3])),
            // Pillow reads these as 16-bit integers and clips them.
            (ColorType::Grayscale, BitDepth::Sixteen) => {
                pixels.extend(pairs(row).flat_map(|[high, low]| [if high == 0 { low } else { 255 }; 3]));
            }
            (ColorType::Grayscale, depth) => {
                let scale = 255 / ((1u16 << depth as u8) - 1) as u8;
                pixels.extend(samples(row, depth as u8).take(width).flat_map(|level| [level * scale; 3]));
            }
            (ColorType::Indexed, depth) => {
                pixels.extend(samples(row, depth as u8).take(width).flat_map(|index| color(palette, index)));
            }
            (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
                pixels.extend(row.chunks_exact(4).flat_map(|pixel| [pixel[0]; 3]));
            }
            (ColorType::GrayscaleAlpha, _) => pixels.extend(row.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3])),
            (ColorType::Rgb, BitDepth::Sixteen) => {
                pixels.extend(row.chunks_exact(6).flat_map(|pixel| [pixel[0], pixel[2], pixel[4]]));
            }
            (ColorType::Rgb, _) => pixels.extend_from_slice(row),
            (ColorType::Rgba, BitDepth::Sixteen) => {
                pixels.extend(row.chunks_exact(8).flat_map(|pixel| [pixel[0], pixel[2], pixel[4]]));
            }
            (ColorType::Rgba, _) => {
                pixels.extend(row.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]));
            }
        }
    }
    Rgb::new(width, height, pixels).map_err(|error| corrupt(error.to_string()))
}

fn pairs(row: &[u8]) -> impl Iterator<Item = [u8; 2]> {
    row.as_chunks::<2>().0.iter().copied()
}

/// The samples of a row that are packed `depth` (1, 2, 4 or 8) bits each, the first in the high bits.
fn samples(row: &[u8], depth: u8) -> impl Iterator<Item = u8> {
    let mask = (0xFF_u16 >> (8 - depth)) as u8;
    row.iter().flat_map(move |&byte| (0..8 / depth).rev().map(move |place| byte >> (place * depth) & mask))
}

/// An entry of a palette; black beyond its end.
fn color(palette: &[u8], index: u8) -> [u8; 3] {
    palette.as_chunks::<3>().0.get(usize::from(index)).copied().unwrap_or_default()
}

fn corrupt(what: String) -> DecodeError {
    DecodeError::Corrupt { format: Format::Png, what }
}

fn explain(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Truncated { format: Format::Png }
        }
        other => corrupt(other.to_string()),
    }
}
