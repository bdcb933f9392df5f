use super::Fault;
use super::frame::{Colors, Frame};
use super::upsample::Upsampler;
use crate::Rgb;
use crate::simd::vectorised;

/// The picture, from a frame whose samples are decoded.
pub(super) fn rgb(frame: &Frame) -> Result<Rgb, Fault> {
    let mut rows: Vec<Upsampler> =
        frame.components.iter().map(|c| Upsampler::new(frame, c)).collect::<Result<_, _>>()?;
    let stride = frame.width * 3;
    let mut pixels = vec![0; stride * frame.height];
    for (y, out) in pixels.chunks_exact_mut(stride).enumerate() {
        match (frame.colors, rows.as_mut_slice()) {
            (Colors::Rgb, [r, g, b]) => interleave(r.row(y), g.row(y), b.row(y), out),
            (Colors::YCbCr, [luma, cb, cr]) => from_ycc(luma.row(y), cb.row(y), cr.row(y), out),
            (Colors::Cmyk, [c, m, yellow, k]) => {
                interleave(c.row(y), m.row(y), yellow.row(y), out);
                darken(k.row(y), out);
            }
            (Colors::Ycck, [luma, cb, cr, k]) => {
                from_ycc(luma.row(y), cb.row(y), cr.row(y), out);
                invert(out);
                darken(k.row(y), out);
            }
            (_, [grey, ..]) => {
                for (pixel, &level) in out.as_chunks_mut::<3>().0.iter_mut().zip(grey.row(y)) {
                    *pixel = [level; 3];
                }
            }
            (_, []) => return Err(Fault::Corrupt("no components")),
        }
    }
    Ok(Rgb::from_parts(frame.width, frame.height, pixels))
}

vectorised! {
    fn interleave(first: &[u8], second: &[u8], third: &[u8], out: &mut [u8]) {
        for (((pixel, &a), &b), &c) in out.as_chunks_mut::<3>().0.iter_mut().zip(first).zip(second).zip(third) {
            *pixel = [a, b, c];
        }
    }
}

/// `round(x · 2¹⁶)`.
const fn fixed(x: f64) -> i32 {
    (x * 65536.0 + 0.5) as i32
}

vectorised! {
    /// JFIF's conversion from YCbCr in 16-bit fixed point, rounded half up.
    fn from_ycc(luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
        const HALF: i32 = 1 << 15;
        for (((pixel, &y), &cb), &cr) in out.as_chunks_mut::<3>().0.iter_mut().zip(luma).zip(cb).zip(cr) {
            let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
            let r = y + ((const { fixed(1.402) } * cr + HALF) >> 16);
            let g = y + ((HALF - const { fixed(0.344_14) } * cb - const { fixed(0.714_14) } * cr) >> 16);
            let b = y + ((const { fixed(1.772) } * cb + HALF) >> 16);
            *pixel = [r, g, b].map(|level| level.clamp(0, 255) as u8);
        }
    }
}

fn invert(out: &mut [u8]) {
    out.iter_mut().for_each(|level| *level = 255 - *level);
}

/// From CMY to RGB under the key, all stored inverted as Adobe does and Pillow always assumes.
fn darken(key: &[u8], out: &mut [u8]) {
    for (pixel, &key) in out.as_chunks_mut::<3>().0.iter_mut().zip(key) {
        let key = i32::from(key);
        for level in pixel {
            let product = (255 - i32::from(*level)) * key + 128;
            let covered = ((product >> 8) + product) >> 8; // product / 255, rounded
            *level = (key - covered).clamp(0, 255) as u8;
        }
    }
}
