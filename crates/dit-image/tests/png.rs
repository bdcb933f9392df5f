//! PNG files: what other readers see in them, and what `read_recipe` makes of files that are not ours.

use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::path::Path;

use dit_image::{Caption, Error, Picture, RECIPE_KEYWORD, RECIPE_LIMIT, read_recipe, write_png};
use proptest::prelude::*;

fn picture() -> Picture {
    Picture::from_rgb((0..3 * 7 * 5).map(|at| (at * 2) as u8).collect(), 7, 5).unwrap()
}

fn in_folder<T>(test: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    test(&folder.path().join("a.png"))
}

#[test]
fn an_independent_reader_sees_pixels_and_texts() {
    in_folder(|path| {
        let caption = Caption::default()
            .with_recipe(r#"{"class":"café"}"#)
            .with_software("dit 1")
            .with_description("Ein Kaffeehaus — sonst nichts");
        write_png(path, &picture(), &caption).unwrap();

        let decoder = png::Decoder::new(BufReader::new(File::open(path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        assert_eq!((info.width, info.height), (7, 5));
        assert_eq!(pixels, picture().rgb());
        let texts = reader.info().utf8_text.iter();
        let texts: Vec<_> = texts.map(|t| (t.keyword.clone(), t.get_text().unwrap())).collect();
        let expected = [
            ("Software", "dit 1"),
            ("Description", "Ein Kaffeehaus — sonst nichts"),
            ("dit.recipe", r#"{"class":"café"}"#),
        ];
        assert_eq!(texts, expected.map(|(k, t)| (k.to_owned(), t.to_owned())));
        assert_eq!(read_recipe(path).unwrap(), r#"{"class":"café"}"#);
    });
}

#[test]
fn equal_pictures_make_equal_bytes_and_overwrite() {
    let caption = Caption::default().with_recipe("{}");
    let write = |path: &Path| {
        write_png(path, &picture(), &caption).unwrap();
        fs::read(path).unwrap()
    };
    let (first, again) = in_folder(|path| (write(path), write(path)));
    assert_eq!(first, again);
    assert_eq!(first, in_folder(write));
}

#[track_caller]
fn check_caption(caption: Caption, expected: &str) {
    in_folder(|path| {
        let error = write_png(path, &picture(), &caption).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    });
}

#[test]
fn texts_that_png_cannot_hold_are_refused() {
    let long = "x".repeat(RECIPE_LIMIT + 1);
    check_caption(Caption::default().with_recipe("a\0b"), "dit.recipe text contains a NUL");
    check_caption(Caption::default().with_description("\0"), "Description text contains a NUL");
    check_caption(Caption::default().with_recipe(long), "1048577 bytes long; the limit is 1048576");
}

#[test]
fn the_longest_recipe_survives() {
    let longest = "é".repeat(RECIPE_LIMIT / 2);
    in_folder(|path| {
        write_png(path, &picture(), &Caption::default().with_recipe(&*longest)).unwrap();
        assert_eq!(read_recipe(path).unwrap(), longest);
    });
}

#[test]
fn unwritable_places_are_named() {
    in_folder(|path| {
        let inside = path.join("b.png");
        let error = write_png(&inside, &picture(), &Caption::default()).unwrap_err();
        assert!(matches!(error, Error::Write(dit_files::WriteError::MissingFolder { .. })), "{error}");
        fs::write(path, "a file").unwrap();
        let error = write_png(&inside, &picture(), &Caption::default()).unwrap_err();
        assert!(matches!(error, Error::Write(dit_files::WriteError::NotAFolder { .. })), "{error}");
    });
}

// Files that are not ours, built chunk by chunk.

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(kind);
    checksum.update(data);
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], kind, data, &checksum.finalize().to_be_bytes()].concat()
}

fn keyed(rest: &[u8]) -> Vec<u8> {
    [RECIPE_KEYWORD.as_bytes(), b"\0", rest].concat()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(text).unwrap();
    packer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<String, String> {
    in_folder(|path| {
        fs::write(path, bytes).unwrap();
        read_recipe(path).map_err(|error| error.to_string())
    })
}

/// The signature, then `chunks`.
#[track_caller]
fn check(chunks: &[Vec<u8>], expected: Result<&str, &str>) {
    let bytes = [SIGNATURE, &chunks.concat()].concat();
    match (read(&bytes), expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected),
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

#[test]
fn recipes_are_found_in_every_kind_of_text() {
    let pixels = chunk(b"IDAT", &[0; 70_000]);
    let end = chunk(b"IEND", b"");
    let plain = chunk(b"iTXt", &keyed(b"\0\0en\0r\xc3\xa9cette\0{\"a\":1}"));
    check(&[plain.clone(), pixels.clone(), end.clone()], Ok("{\"a\":1}"));
    check(&[pixels.clone(), plain.clone(), end.clone()], Ok("{\"a\":1}"));
    check(std::slice::from_ref(&plain), Ok("{\"a\":1}")); // the picture is cut, its recipe is not
    let packed = [b"\x01\0\0\0", &deflate("{é}".as_bytes())[..]].concat();
    check(&[chunk(b"iTXt", &keyed(&packed))], Ok("{é}"));
    check(&[chunk(b"tEXt", &keyed(b"{\xe9}"))], Ok("{é}"));
    check(&[chunk(b"zTXt", &keyed(&[b"\0", &deflate(b"{\xe9}")[..]].concat()))], Ok("{é}"));
    let other = chunk(b"iTXt", b"dit.recipes\0\0\0\0\0no");
    check(&[other.clone(), chunk(b"tEXt", b"x"), plain, end.clone()], Ok("{\"a\":1}"));
    check(&[other, chunk(b"tEXt", b""), pixels, end], Err("carries no recipe"));
}

#[test]
fn broken_files_are_told_apart() {
    let huge = [&u32::MAX.to_be_bytes()[..], b"IDAT"].concat();
    check(&[], Err("cut short"));
    check(&[huge], Err("claims more than 2 GiB"));
    check(&[b"\x7f\xff\xff\xffIDATxx".to_vec()], Err("cut short"));
    check(&[[&b"\x7f\xff\xff\xffiTXt"[..], &keyed(b"\0\0")].concat()], Err("longer than 1048576"));

    let good = chunk(b"iTXt", &keyed(b"\0\0\0\0{}"));
    for cut in 0..good.len() {
        check(&[good[..cut].to_vec()], Err("cut short"));
    }
    let mut flipped = good.clone();
    flipped[25] ^= 1;
    check(&[flipped], Err("checksum is wrong"));

    for malformed in [&b""[..], b"\0", b"\x02\0\0\0{}", b"\0\x01\0\0{}", b"\0\0{}", b"\0\0\0{}"] {
        check(&[chunk(b"iTXt", &keyed(malformed))], Err("malformed"));
    }
    check(&[chunk(b"zTXt", &keyed(b"\x07abc"))], Err("malformed"));
    check(&[chunk(b"zTXt", &keyed(b"\0abc"))], Err("does not decompress"));
    check(&[chunk(b"iTXt", &keyed(b"\0\0\0\0\xff"))], Err("not UTF-8"));
}

#[test]
fn bombs_are_not_unpacked() {
    let bomb = deflate(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    check(&[chunk(b"zTXt", &keyed(&[b"\0", &bomb[..]].concat()))], Err("longer than 1048576"));
    check(&[chunk(b"iTXt", &keyed(&[b"\x01\0\0\0", &bomb[..]].concat()))], Err("longer than 1048576"));
    let long = vec![b' '; RECIPE_LIMIT + 1];
    check(&[chunk(b"tEXt", &keyed(&long))], Err("longer than 1048576"));
}

#[test]
fn what_is_no_png_is_said_so() {
    for bytes in [&b""[..], b"\x89PNG", b"<!DOCTYPE html>", b"\xff\xd8\xff\xe0"] {
        assert!(read(bytes).unwrap_err().contains("not a PNG"), "{bytes:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = read_recipe(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotAPng { .. }), "{error}");
    let error = read_recipe(folder.path().join("none.png")).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

proptest! {
    /// Neither a wild byte anywhere nor noise makes the reader panic, or invent a recipe.
    #[test]
    fn damage_never_yields_another_recipe(at in 0_usize..400, byte: u8, noise: Vec<u8>) {
        in_folder(|path| {
            write_png(path, &picture(), &Caption::default().with_recipe(r#"{"seed":7}"#)).unwrap();
            let mut bytes = fs::read(path).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(recipe) = read(&bytes) {
                prop_assert_eq!(recipe, r#"{"seed":7}"#);
            }
            prop_assert!(read(&[SIGNATURE, &noise].concat()).is_err());
            Ok(())
        })?;
    }
}
