use crate::{Error, Rgb, resample};

/// The largest side that can be cropped to.
const LARGEST: usize = 1 << 14;

/// The square centre crop of Dhariwal & Nichol 2021 ("ADM crop"), on which ImageNet models are trained and measured.
///
/// The picture is halved with a box filter while its shorter side is at least twice `size`, then scaled bicubically so
/// that the shorter side is `size`, then cropped in the middle, all to the byte as Pillow up to 12 computes it (13 changed the
/// order of its passes for some shapes). New sides round half to even, as Python does. What the crop leaves out is never computed,
/// so that a picture however long and thin costs no more than its own pixels.
///
/// ```
/// use dit_data::{Rgb, adm_crop};
/// let picture = Rgb::new(640, 480, vec![127; 640 * 480 * 3])?;
/// let cropped = adm_crop(picture, 256)?;
/// assert_eq!((cropped.width(), cropped.height()), (256, 256));
/// # Ok::<(), dit_data::Error>(())
/// ```
///
/// # Errors
/// [`Error::CropSize`] for a `size` of 0 or beyond 16384.
pub fn adm_crop(picture: Rgb, size: usize) -> Result<Rgb, Error> {
    if !(1..=LARGEST).contains(&size) {
        return Err(Error::CropSize { size, largest: LARGEST });
    }
    let mut picture = picture;
    while picture.width().min(picture.height()) >= 2 * size {
        picture = resample::halve(&picture);
    }
    let scale = size as f64 / picture.width().min(picture.height()) as f64;
    let side = |length: usize| (length as f64 * scale).round_ties_even() as usize;
    // The shorter side is `size` but for the rounding of `scale`, which cannot reach half a pixel.
    let sides = (side(picture.width()), side(picture.height()));
    Ok(resample::resize_and_crop(&picture, sides, size))
}
