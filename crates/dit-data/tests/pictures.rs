//! Decoding and cropping against what Pillow gives; see `tests/fixtures/make_pictures.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dit_data::{DecodeError, Encoded, Error, Limits, Rgb, adm_crop, decode};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(data(name)).unwrap()).unwrap()
}

fn digest(picture: &Rgb) -> String {
    hex::encode(Sha256::digest(picture.pixels()))
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(data("pictures").join(name)).unwrap()
}

/// As in `make_pictures.py`.
fn lcg(count: usize, seed: u64) -> Vec<u8> {
    let step = |x: &u64| Some(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    std::iter::successors(step(&seed), step).take(count).map(|x| (x >> 56) as u8).collect()
}

/// As in `make_pictures.py`.
fn synthetic(width: usize, height: usize, kind: u32) -> Rgb {
    let seed = (width * 65536 + height) as u64;
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels = match kind {
        0 => lcg(width * height * 3, seed),
        1 => lcg(width * height, seed).into_iter().flat_map(|level| [(level >> 7) * 255; 3]).collect(),
        2 => places.flat_map(|(x, y)| [1, 2, 3].map(|steep| ((x + y) * steep % 256) as u8)).collect(),
        _ => {
            let wide = width / 8 + 1;
            let squares = lcg(wide * (height / 8 + 1) * 3, seed);
            places.flat_map(|(x, y)| [0, 1, 2].map(|c| squares[((y / 8) * wide + x / 8) * 3 + c])).collect()
        }
    };
    Rgb::new(width, height, pixels).unwrap()
}

#[test]
fn crops_are_pillows() {
    let cases: Vec<(usize, usize, usize, u32, String)> = json("crops.json");
    assert!(cases.len() > 150, "{} cases", cases.len());
    for (width, height, size, kind, expected) in cases {
        let cropped = adm_crop(synthetic(width, height, kind), size).unwrap();
        assert_eq!((cropped.width(), cropped.height()), (size, size));
        assert_eq!(digest(&cropped), expected, "{width} x {height} to {size}, kind {kind}");
    }
}

#[test]
fn every_mode_is_decoded_as_pillow_decodes_it() {
    let expected: BTreeMap<String, (usize, usize, String)> = json("pictures.json");
    assert_eq!(expected.len(), std::fs::read_dir(data("pictures")).unwrap().count());
    for (name, (width, height, hash)) in expected {
        let decoded = decode(&picture(&name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((decoded.width(), decoded.height()), (width, height), "{name}");
        assert_eq!(digest(&decoded), hash, "{name}");
    }
}

#[test]
fn grey_levels_become_three() {
    let grey = Encoded::Grey { width: 2, height: 1, levels: vec![7, 200] };
    assert_eq!(grey.decode(&Limits::default()).unwrap().pixels(), [7, 7, 7, 200, 200, 200]);
    let short = Encoded::Grey { width: 2, height: 2, levels: vec![7, 200] };
    assert!(matches!(short.decode(&Limits::default()), Err(DecodeError::Shape { .. })));
}

/// Every file cut anywhere well before its end is an error.
#[test]
fn truncated_files_are_errors() {
    let names =
        ["420.jpg", "progressive.jpg", "cmyk.jpg", "restart.jpg", "colour2-depth8.png", "lossy.webp", "lossless.webp"];
    for name in names {
        let whole = picture(name);
        for length in 0..whole.len() - 24 {
            assert!(decode(&whole[..length], &Limits::default()).is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn a_jpeg_without_its_last_marker_is_truncated() {
    let whole = picture("420.jpg");
    let error = decode(&whole[..whole.len() - 2], &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "truncated JPEG");
}

#[track_caller]
fn check_refused(bytes: &[u8], expected: &str) {
    let error = decode(bytes, &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_is_no_picture_is_named() {
    check_refused(b"", "not a picture: it is empty");
    check_refused(b"<html>", "not a picture: it begins with the text \"<html>\"");
    check_refused(&[0x1f, 0x8b, 8], "not a picture: it begins with the bytes [1f, 8b, 08]");
    check_refused(b"GIF89a......", "a GIF is not supported; convert it to PNG or JPEG");
    check_refused(b"II*\0....", "a TIFF is not supported; convert it to PNG or JPEG");
    check_refused(b"\0\0\0\x1cftypavif", "an AVIF or HEIF is not supported; convert it to PNG or JPEG");
}

/// A frame header of that kind, components and sides, and nothing else.
fn jpeg_header(kind: u8, precision: u8, sides: [u8; 4], factors: u8) -> Vec<u8> {
    let [h1, h0, w1, w0] = sides;
    let mut bytes = vec![0xFF, 0xD8, 0xFF, kind, 0, 11, precision, h1, h0, w1, w0, 1, 1, factors, 0];
    bytes.extend([0xFF, 0xD9]);
    bytes
}

#[test]
fn jpegs_that_are_not_decoded_say_why() {
    let small = [0, 8, 0, 8];
    check_refused(
        &jpeg_header(0xC0, 12, small, 0x11),
        "a JPEG of other than 8 bits is not supported; convert it to PNG or JPEG",
    );
    check_refused(
        &jpeg_header(0xC3, 8, small, 0x11),
        "a lossless or hierarchical JPEG is not supported; convert it to PNG or JPEG",
    );
    check_refused(
        &jpeg_header(0xC9, 8, small, 0x11),
        "an arithmetic-coded JPEG is not supported; convert it to PNG or JPEG",
    );
    check_refused(&jpeg_header(0xC0, 8, [0, 0, 0, 8], 0x11), "damaged JPEG: picture without pixels");
    check_refused(&jpeg_header(0xC0, 8, small, 0x51), "damaged JPEG: sampling factors");
    check_refused(&jpeg_header(0xC0, 8, small, 0x11), "damaged JPEG: no scan");
    check_refused(&[0xFF, 0xD8, 0xFF, 0xD9], "damaged JPEG: no frame header");
}

/// The header alone decides: nothing is decoded.
#[track_caller]
fn check_bomb(bytes: &[u8], width: u64, height: u64) {
    let limits = Limits { max_pixels: width * height - 1 };
    let expected = DecodeError::TooLarge { width, height, limit: limits.max_pixels };
    assert_eq!(decode(bytes, &limits).unwrap_err(), expected);
}

#[test]
fn bombs_are_refused_by_their_headers() {
    check_bomb(&jpeg_header(0xC0, 8, [0xFF, 0xFF, 0xFF, 0xFF], 0x11), 65535, 65535);
    check_bomb(&picture("420.jpg"), 35, 27);
    check_bomb(&picture("grey8.png"), 21, 13);
    check_bomb(&picture("lossy.webp"), 35, 27);
    check_bomb(&picture("lossless.webp"), 35, 27);
    let grey = Encoded::Grey { width: 3, height: 3, levels: vec![0; 9] };
    assert!(matches!(grey.decode(&Limits { max_pixels: 8 }), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn a_crop_needs_a_size() {
    for size in [0, 16385, usize::MAX] {
        let error = adm_crop(synthetic(4, 4, 0), size).unwrap_err();
        assert!(matches!(error, Error::CropSize { .. }), "{error}");
    }
}

/// A picture of any shape costs no more than itself and the crop.
#[test]
fn thin_pictures_are_cropped() {
    let cropped = adm_crop(Rgb::new(1, 200_000, vec![9; 600_000]).unwrap(), 256).unwrap();
    assert!(cropped.pixels().iter().all(|&level| level == 9));
}

#[test]
fn a_picture_is_as_large_as_its_bytes() {
    for (width, height, bytes) in [(0, 1, 0), (1, 0, 0), (1, 1, 4), (usize::MAX, usize::MAX, 3)] {
        assert!(matches!(Rgb::new(width, height, vec![0; bytes]), Err(Error::PictureShape { .. })));
    }
}

fn any_picture() -> impl Strategy<Value = Vec<u8>> {
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(data("pictures")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    prop::sample::select(names).prop_map(|path| std::fs::read(path).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Whatever is changed in a file, the answer is a picture within limits or an error.
    #[test]
    fn damage_never_panics(
        mut bytes in any_picture(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        spliced in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some((from, to)) = spliced {
            let tail = bytes[from.index(bytes.len())..].to_vec();
            bytes.truncate(to.index(bytes.len()));
            bytes.extend(tail);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let limits = Limits { max_pixels: 1 << 16 };
        if let Ok(picture) = decode(&bytes, &limits) {
            prop_assert!((picture.width() * picture.height()) as u64 <= limits.max_pixels);
            let cropped = adm_crop(picture, 16).unwrap();
            prop_assert_eq!(cropped.pixels().len(), 16 * 16 * 3);
        }
    }
}
