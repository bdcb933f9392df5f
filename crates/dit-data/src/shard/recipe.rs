use serde::{Deserialize, Serialize};

use crate::{Error, Rgb, adm_crop};

/// How a picture of any size becomes a square one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropRecipe {
    /// Scaled so that the shorter side fits, then cropped in the middle: [`adm_crop`].
    Adm,
    /// Not scaled: put in the middle of a black square. For data of one small size, such as MNIST's 28 pixels at 32.
    Pad,
}

impl CropRecipe {
    /// `picture` at `size` × `size` pixels.
    ///
    /// # Errors
    /// As [`adm_crop`]; [`Error::TooLargeToPad`] where a picture is to be padded and does not fit.
    pub fn apply(self, picture: Rgb, size: usize) -> Result<Rgb, Error> {
        match self {
            Self::Adm => adm_crop(picture, size),
            Self::Pad => pad(&picture, size),
        }
    }
}

fn pad(picture: &Rgb, size: usize) -> Result<Rgb, Error> {
    let (width, height) = (picture.width(), picture.height());
    if width > size || height > size {
        return Err(Error::TooLargeToPad { width, height, size });
    }
    let (left, top) = ((size - width) / 2, (size - height) / 2);
    let mut pixels = vec![0; size * size * 3];
    let rows = pixels.chunks_exact_mut(size * 3).skip(top);
    for (into, row) in rows.zip(picture.pixels().chunks_exact(width * 3)) {
        into[left * 3..][..width * 3].copy_from_slice(row);
    }
    Rgb::new(size, size, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_centres_and_does_not_scale() {
        let picture = Rgb::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let padded = CropRecipe::Pad.apply(picture.clone(), 4).unwrap();
        let mut expected = vec![0; 48];
        expected[(4 + 1) * 3..][..6].copy_from_slice(picture.pixels());
        assert_eq!(padded.pixels(), expected);
        assert_eq!(CropRecipe::Pad.apply(picture.clone(), 2).unwrap().pixels(), [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(
            CropRecipe::Pad.apply(picture, 1),
            Err(Error::TooLargeToPad { width: 2, height: 1, size: 1 })
        ));
    }
}
