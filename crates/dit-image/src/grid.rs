use std::num::NonZeroUsize;

use crate::error::{Error, Result};
use crate::picture::Picture;

/// Columns of the published sample sheet.
pub const GRID_COLUMNS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// Black pixels around and between the pictures of a sheet.
pub const GRID_PADDING: u32 = 2;

/// Lays pictures of one size out on a black sheet, row by row, `columns` to a row.
///
/// The geometry is that of the published sample sheet, so that sheets of both can be laid on one another: a frame of
/// [`GRID_PADDING`] pixels around everything and the same between neighbours; fewer pictures than `columns` make a
/// narrower sheet; the rest of an incomplete last row stays black; a single picture is returned as it is, without a frame.
///
/// # Errors
/// [`Error::NoPictures`], [`Error::MixedSizes`], or [`Error::Size`] if the sheet would be larger than a PNG can be.
pub fn grid(pictures: &[Picture], columns: NonZeroUsize) -> Result<Picture> {
    let (first, rest) = pictures.split_first().ok_or(Error::NoPictures)?;
    if rest.is_empty() {
        return Ok(first.clone());
    }
    for (index, picture) in (1..).zip(rest) {
        if picture.size() != first.size() {
            return Err(Error::MixedSizes { index, found: picture.size(), expected: first.size() });
        }
    }

    let columns = columns.get().min(pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let (width, height) = (sheet_side(columns, first.width()), sheet_side(rows, first.height()));
    let side = |side: u64| u32::try_from(side).ok().filter(|&side| side <= i32::MAX as u32);
    let (Some(width), Some(height)) = (side(width), side(height)) else {
        return Err(Error::Size { width, height });
    };

    let line = 3 * width as usize;
    let picture_line = 3 * first.width() as usize;
    let mut rgb = vec![0; line * height as usize];
    for (at, picture) in pictures.iter().enumerate() {
        let left = 3 * offset(at % columns, first.width());
        let top = offset(at / columns, first.height());
        let band = rgb.chunks_exact_mut(line).skip(top);
        for (to, from) in band.zip(picture.rgb().chunks_exact(picture_line)) {
            to[left..left + picture_line].copy_from_slice(from);
        }
    }
    Picture::from_rgb(rgb, width, height)
}

/// The side of a sheet of `count` pictures whose side is `side`.
fn sheet_side(count: usize, side: u32) -> u64 {
    (count as u64).saturating_mul(u64::from(side) + u64::from(GRID_PADDING)).saturating_add(GRID_PADDING.into())
}

/// Where the picture number `index` of a row or column begins, in pixels.
fn offset(index: usize, side: u32) -> usize {
    let padding = GRID_PADDING as usize;
    padding + index * (side as usize + padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(level: u8, width: u32, height: u32) -> Picture {
        Picture::from_rgb(vec![level; (3 * width * height) as usize], width, height).unwrap()
    }

    /// Lays out pictures of 1×1 pixel; `expected` has one character a pixel, `.` for black.
    #[track_caller]
    fn check(count: u8, columns: usize, expected: &[&str]) {
        let pictures: Vec<_> = (0..count).map(|index| plain(b'a' + index, 1, 1)).collect();
        let sheet = grid(&pictures, NonZeroUsize::new(columns).unwrap()).unwrap();
        let lines: Vec<String> = sheet
            .rgb()
            .chunks_exact(3 * sheet.width() as usize)
            .map(|line| {
                let pixels = line.chunks_exact(3);
                pixels.map(|rgb| if rgb[0] == 0 { '.' } else { rgb[0] as char }).collect()
            })
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn sheets_have_the_published_geometry() {
        check(1, 4, &["a"]);
        check(2, 4, &["........", "........", "..a..b..", "........", "........"]);
        check(3, 2, &["........", "........", "..a..b..", "........", "........", "..c.....", "........", "........"]);
    }

    #[test]
    fn every_pixel_lands_once() {
        let pictures: Vec<_> = (1..=8).map(|level| plain(level, 5, 3)).collect();
        let sheet = grid(&pictures, GRID_COLUMNS).unwrap();
        assert_eq!(sheet.size(), (2 + 4 * 7, 2 + 2 * 5));
        for level in 1..=8 {
            let found = sheet.rgb().iter().filter(|&&byte| byte == level).count();
            assert_eq!(found, 3 * 5 * 3, "picture {level}");
        }
    }

    #[test]
    fn what_makes_no_sheet_is_refused() {
        assert!(matches!(grid(&[], GRID_COLUMNS), Err(Error::NoPictures)));
        let mixed = [plain(1, 2, 2), plain(2, 2, 2), plain(3, 2, 1)];
        let error = grid(&mixed, GRID_COLUMNS).unwrap_err().to_string();
        assert!(error.starts_with("picture 2 is 2×1, but the others are 2×2"), "{error}");
    }
}
