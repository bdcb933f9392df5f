use std::ops::ControlFlow;

use tch::Device;

use crate::{Error, LatentCodec, Latents, latents::values};

/// Places of latents, h·w of all pictures together, that a GPU decodes at once.
const DECODED_AT_ONCE: i64 = 4 * 32 * 32;

/// A decoded picture.
#[derive(Debug, Clone, Copy)]
pub struct Decoded<'a> {
    /// (3, H, W), row-major, nominally in \[−1, 1\], not clamped.
    pub values: &'a [f32],
    /// H.
    pub height: u32,
    /// W.
    pub width: u32,
}

/// Decodes `latents`, (N, C, h, w), and hands each picture on, in order. It ends early where `each` breaks.
///
/// On a CPU one picture is decoded at a time, as larger batches leave the cache; on a GPU four of 256 × 256, more of smaller ones: memory
/// does not grow with the batch.
///
/// # Errors
/// Where decoding fails, or `each` does.
pub fn decode_each<E: From<Error>>(
    codec: &(impl LatentCodec + ?Sized),
    latents: &Latents,
    mut each: impl FnMut(Decoded<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<ControlFlow<()>, E> {
    let latents = latents.tensor();
    let shape = |what, actual, expected: &str| Error::Shape { what, actual, expected: expected.to_owned() };
    if latents.dim() != 4 {
        return Err(shape("latents", latents.size(), "(N, C, h, w)").into());
    }
    let places: i64 = latents.size().iter().skip(2).product();
    let at_once = if latents.device() == Device::Cpu { 1 } else { (DECODED_AT_ONCE / places.max(1)).max(1) };
    for latents in latents.split(at_once, 0) {
        let images = codec.decode(&Latents::new(latents))?; // (M, 3, H, W)
        let &[_, 3, height, width] = images.size().as_slice() else {
            return Err(shape("images", images.size(), "(M, 3, H, W)").into());
        };
        let (height, width) = (height as u32, width as u32);
        for values in values(&images).chunks_exact((3 * height as usize * width as usize).max(1)) {
            if each(Decoded { values, height, width })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
