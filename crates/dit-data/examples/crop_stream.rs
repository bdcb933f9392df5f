//! Crops pictures from stdin to stdout: width, height, size as little-endian u32, then the RGB bytes, again and again.
//! For comparing with other programs: `cargo run -p dit-data --example crop_stream`.

use std::io::{Read, Write};

use dit_data::{Rgb, adm_crop};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut header = [0; 12];
    while input.read_exact(&mut header).is_ok() {
        let field = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]) as usize;
        let (width, height, size) = (field(0), field(4), field(8));
        let mut pixels = vec![0; width * height * 3];
        input.read_exact(&mut pixels)?;
        output.write_all(adm_crop(Rgb::new(width, height, pixels)?, size)?.pixels())?;
        output.flush()?;
    }
    Ok(())
}
