//! Names of files and members: their order, and what of them is safe to repeat.

use std::cmp::Ordering;

/// Compares as Python compares the strings that its `os` functions make of these bytes: by code point, with bytes that are no
/// UTF-8 as U+DC80 to U+DCFF.
pub(super) fn python_order(a: &[u8], b: &[u8]) -> Ordering {
    fn points(bytes: &[u8]) -> impl Iterator<Item = u32> {
        bytes.utf8_chunks().flat_map(|chunk| {
            let valid = chunk.valid().chars().map(u32::from);
            valid.chain(chunk.invalid().iter().map(|&byte| 0xDC00 + u32::from(byte)))
        })
    }
    points(a).cmp(points(b))
}

/// The extensions that torchvision's `ImageFolder` lists. What is in the file decides how it is decoded.
const PICTURES: [&[u8]; 9] = [b".jpg", b".jpeg", b".png", b".ppm", b".bmp", b".pgm", b".tif", b".tiff", b".webp"];

/// Whether `ImageFolder` would take a file of this name for a picture.
pub(super) fn is_picture(name: &[u8]) -> bool {
    let ends = |extension: &[u8]| {
        name.len().checked_sub(extension.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(extension))
    };
    PICTURES.iter().any(|extension| ends(extension))
}

/// A name that is harmless to print, compare and store: relative, without `.` and `..`, control characters replaced.
pub(super) fn key(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let parts = text.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    let joined = parts.collect::<Vec<_>>().join("/");
    joined.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
