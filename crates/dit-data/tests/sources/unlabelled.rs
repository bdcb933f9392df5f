//! Pictures without classes: all of them, or none.

use std::fs;
use std::path::Path;

use dit_data::{Encoded, Unlabelled};

use crate::tar_file::{Entry, attribute, entry, file, tar};
use crate::write;

#[track_caller]
fn check(path: &Path, expected: &[(&str, &str)]) {
    let pictures = Unlabelled::open(path).unwrap().unwrap();
    let text = |index| match pictures.read(index).unwrap() {
        Encoded::File(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = (0..pictures.len()).map(|index| (pictures.key(index), text(index))).collect();
    let found: Vec<_> = found.iter().map(|(key, text)| (*key, text.as_str())).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn check_refused(path: &Path, expected: &str) {
    let message = Unlabelled::open(path).unwrap_err().to_string();
    assert!(message.contains(expected) && message.contains("help: "), "{message}");
}

#[track_caller]
fn check_tar(bytes: &[u8], expected: Result<&[(&str, &str)], &str>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.tar");
    fs::write(&path, bytes).unwrap();
    match expected {
        Ok(expected) => check(&path, expected),
        Err(expected) => check_refused(&path, expected),
    }
}

#[test]
fn pictures_of_a_folder_come_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("b.PNG", "b"), ("a.jpg", "a"), (".hidden.png", "x"), ("notes.txt", "x"), ("c.bmp", "c")]);
    check(folder.path(), &[("a.jpg", "a"), ("b.PNG", "b"), ("c.bmp", "c")]);
    // Folders without pictures, and hidden ones, are nobody's.
    write(folder.path(), &[("logs/a.txt", "x"), (".thumbnails/a.png", "x")]);
    check(folder.path(), &[("a.jpg", "a"), ("b.PNG", "b"), ("c.bmp", "c")]);
}

#[test]
fn no_pictures_are_no_set() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("one/a.png", "x"), ("text", "no archive")]);
    fs::write(folder.path().join("empty.tar"), tar(&[file("a.txt", "x")])).unwrap();
    for path in ["", "text", "empty.tar"] {
        assert!(Unlabelled::open(&folder.path().join(path)).unwrap().is_none(), "{path}");
    }
}

#[test]
fn pictures_beside_others_are_refused() {
    for more in ["class/a.png", "class/deep/a.webp"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[("grid.png", "x"), (more, "x")]);
        check_refused(folder.path(), &format!("such as grid.png, and {more}"));
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("grid.png", "x")]);
    let samples = tar(&[file("0.png", "x"), file("0.cls", "1")]);
    fs::write(folder.path().join("samples.tar"), samples).unwrap();
    check_refused(folder.path(), "such as grid.png, and samples.tar");
}

#[test]
fn members_with_long_names_are_read() {
    let long = format!("{}a.png", "long/".repeat(60));
    check_tar(
        &tar(&[entry("././@LongLink", b'L', format!("{long}\0")), file("short", "x"), file("b.png", "b")]),
        Ok(&[("b.png", "b"), (&long, "x")]),
    );
    check_tar(
        &tar(&[entry("pax", b'x', attribute("path", &long)), file("short", "x"), file("._b.png", "b")]),
        Ok(&[(&long, "x")]),
    );
}

#[test]
fn what_would_be_left_out_is_refused() {
    let whole = tar(&[file("a.png", "x".repeat(600)), file("b.png", "y".repeat(600))]);
    let (first, second) = (512 + 1024, 2 * (512 + 1024));
    check_tar(&whole[..second - 100], Err("ends within a member"));
    check_tar(&whole[..first + 100], Err("ends within a header"));
    for kind in *b"12S" {
        let link = || Entry { size: Some(0), ..entry("c.png", kind, "") };
        check_tar(&tar(&[file("a.png", "x"), link()]), Err("c.png is a link or a sparse file"));
        let other = || Entry { size: Some(0), ..entry("c.txt", kind, "") };
        check_tar(&tar(&[file("a.png", "x"), other()]), Ok(&[("a.png", "x")]));
    }
    check_tar(&tar(&[entry("folder.png/", b'5', ""), file("a.png", "x")]), Ok(&[("a.png", "x")]));
}
