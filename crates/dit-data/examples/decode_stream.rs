//! Decodes pictures from stdin to stdout, again and again, for comparing with other programs:
//! `cargo run -p dit-data --example decode_stream`.
//!
//! In: bytes as little-endian u32, crop size (0 for none), then the bytes of a picture file. Out: width, height, then RGB; for what
//! cannot be decoded, 0 and the message's length, then the message.

use std::io::{Read, Write};

use dit_data::{Limits, adm_crop, decode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut header = [0; 8];
    while input.read_exact(&mut header).is_ok() {
        let [a, b, c, d, e, f, g, h] = header;
        let (length, size) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let mut bytes = vec![0; length as usize];
        input.read_exact(&mut bytes)?;
        let (sides, body) = match decode(&bytes, &Limits::default()) {
            Ok(picture) => {
                let picture = if size == 0 { picture } else { adm_crop(picture, size as usize)? };
                ([picture.width(), picture.height()], picture.pixels().to_vec())
            }
            Err(error) => {
                let message = error.to_string().into_bytes();
                ([0, message.len()], message)
            }
        };
        for side in sides {
            output.write_all(&(side as u32).to_le_bytes())?;
        }
        output.write_all(&body)?;
        output.flush()?;
    }
    Ok(())
}
