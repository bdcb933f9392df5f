//! The archives, read back by an independent zip reader. NumPy is not needed to run the tests; by hand:
//! `cargo run -p dit-image --example sheet FOLDER`, then `numpy.load("FOLDER/wheels.npz")["arr_0"]`.

use std::fs;
use std::io::Read;
use std::path::Path;

use dit_image::{Error, NpzWriter, Picture};

fn picture(level: u8, width: u32, height: u32) -> Picture {
    let length = 3 * width * height;
    let rgb = (0..length).map(|at| level.wrapping_add(at as u8)).collect();
    Picture::from_rgb(rgb, width, height).unwrap()
}

/// Array header's dictionary and values of every member, as the `zip` crate reads them: it verifies sizes and checksums.
fn read_back(path: &Path) -> Vec<(String, String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let count = archive.len();
    let read = |at: usize| {
        let mut member = archive.by_index(at).unwrap();
        assert_eq!(member.compression(), zip::CompressionMethod::Stored);
        assert_eq!(member.unix_mode(), Some(0o100_644));
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        let (header, values) = bytes.split_at(128);
        assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(header[127], b'\n');
        let dictionary = std::str::from_utf8(&header[10..]).unwrap().trim();
        (member.name().unwrap().into_owned(), dictionary.to_owned(), values.to_vec())
    };
    (0..count).map(read).collect()
}

/// Announces `announced` pictures, pushes `pushed`, finishes early if that is fewer; with labels too.
#[track_caller]
fn check(announced: u64, pushed: u8, width: u32, height: u32, starts_zip64: bool) {
    check_labelled(announced, pushed, width, height, starts_zip64, false);
    if announced <= 50_000 {
        check_labelled(announced, pushed, width, height, starts_zip64, true);
    }
}

#[track_caller]
fn check_labelled(announced: u64, pushed: u8, width: u32, height: u32, starts_zip64: bool, is_labelled: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let pictures: Vec<_> = (0..pushed).map(|level| picture(level, width, height)).collect();
    let labels: Vec<u32> = (0..announced.min(50_000) as u32).map(|at| at * 7 + 999).collect();
    let mut npz = match is_labelled {
        true => NpzWriter::create_labelled(&path, labels.clone(), width, height).unwrap(),
        false => NpzWriter::create(&path, announced, width, height).unwrap(),
    };
    for picture in &pictures {
        npz.push(picture).unwrap();
    }
    assert!(!path.exists());
    let part = folder.path().join("a.npz.interrupted");
    let found = if u64::from(pushed) == announced {
        npz.finish().unwrap();
        assert!(!part.exists());
        path
    } else {
        assert_eq!(npz.finish_early().unwrap().as_deref(), Some(&*part));
        assert!(!path.exists());
        part
    };

    let members = read_back(&found);
    let dictionary =
        |descr: &str, shape: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let pixels = pictures.iter().flat_map(|p| p.rgb()).copied().collect::<Vec<_>>();
    let mut expected =
        vec![("arr_0.npy".to_owned(), dictionary("|u1", &format!("{pushed}, {height}, {width}, 3")), pixels)];
    if is_labelled {
        let values = labels[..pushed.into()].iter().flat_map(|&label| i64::from(label).to_le_bytes()).collect();
        expected.push(("arr_1.npy".to_owned(), dictionary("<i8", &format!("{pushed},")), values));
    }
    assert!(members == expected, "{:?}", members.iter().map(|(name, header, _)| (name, header)).collect::<Vec<_>>());
    let version_needed = fs::read(&found).unwrap()[4];
    assert_eq!(version_needed == 45, starts_zip64);
}

#[test]
fn archives_read_back() {
    check(1, 1, 1, 1, false);
    check(3, 3, 5, 2, false);
    check(200, 200, 8, 8, false);
    check(50_000, 7, 32, 16, false); // interrupted
    check(50_000, 3, 256, 256, true); // interrupted, and announced beyond 4 GiB
    check(u64::from(u32::MAX), 2, 4, 4, true);
}

#[test]
fn an_interruption_after_the_last_picture_leaves_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let mut npz = NpzWriter::create_labelled(&path, vec![3], 4, 4).unwrap();
    npz.push(&picture(9, 4, 4)).unwrap();
    assert_eq!(npz.finish_early().unwrap().as_deref(), Some(&*path));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// What an interrupted run kept may have more pictures, or be somebody else's.
#[test]
fn neither_a_whole_nor_a_part_takes_what_was_kept_before() {
    for (pushed, expected) in [(1, "a.npz.interrupted-2"), (2, "a.npz")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let before = folder.path().join("a.npz.interrupted");
        fs::write(&before, "kept before").unwrap();
        let mut npz = NpzWriter::create(&path, 2, 4, 4).unwrap();
        for level in 0..pushed {
            npz.push(&picture(level, 4, 4)).unwrap();
        }
        assert_eq!(npz.finish_early().unwrap(), Some(folder.path().join(expected)));
        assert_eq!(fs::read_to_string(&before).unwrap(), "kept before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

#[test]
fn equal_pictures_make_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = ["a.npz", "b.npz"].map(|name| {
        let path = folder.path().join(name);
        let mut npz = NpzWriter::create(&path, 1, 4, 4).unwrap();
        npz.push(&picture(9, 4, 4)).unwrap();
        npz.finish().unwrap();
        fs::read(path).unwrap()
    });
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn a_short_archive_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let mut npz = NpzWriter::create(&path, 3, 4, 4).unwrap();
    npz.push(&picture(0, 4, 4)).unwrap();
    let error = npz.finish().unwrap_err();
    assert!(matches!(error, Error::TooFewPictures { announced: 3, written: 1, .. }), "{error}");

    assert_eq!(NpzWriter::create(&path, 3, 4, 4).unwrap().finish_early().unwrap(), None);
    drop(NpzWriter::create(&path, 3, 4, 4).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn wrong_pictures_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let mut npz = NpzWriter::create(&path, 1, 4, 4).unwrap();
    let error = npz.push(&picture(0, 4, 5)).unwrap_err();
    assert!(matches!(error, Error::MixedSizes { index: 0, .. }), "{error}");
    npz.push(&picture(0, 4, 4)).unwrap();
    let error = npz.push(&picture(0, 4, 4)).unwrap_err();
    assert!(matches!(error, Error::TooManyPictures { announced: 1, .. }), "{error}");
    npz.finish().unwrap();
    assert_eq!(read_back(&path)[0].2.len(), 48);
}

#[track_caller]
fn check_not_created(path: &Path, count: u64, side: u32, expected: &str) {
    let error = NpzWriter::create(path, count, side, side).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn impossible_archives_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    check_not_created(&folder.path().join("a.npz"), 1, 0, "cannot be 0×0");
    check_not_created(&folder.path().join("a.npz"), u64::MAX, 256, "do not fit any file");
    check_not_created(&folder.path().join("b/a.npz"), 1, 4, "b does not exist");
    check_not_created(folder.path(), 1, 4, "is a folder");
}

/// Over 4 GiB for real; takes a minute and the disk space, so only on request.
#[test]
fn a_member_beyond_four_gibibytes_reads_back() {
    if std::env::var_os("DIT_SLOW_TESTS").is_none_or(|value| value.is_empty() || value == "0") {
        eprintln!("SKIPPED: writes 4.3 GB; set DIT_SLOW_TESTS=1 to run it");
        return;
    }
    const COUNT: u64 = 1400;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("large.npz");
    let large = picture(3, 1024, 1024);
    let mut npz = NpzWriter::create_labelled(&path, vec![7; COUNT as usize], 1024, 1024).unwrap();
    for _ in 0..COUNT {
        npz.push(&large).unwrap();
    }
    npz.finish().unwrap();
    let mut archive = zip::ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    for (at, size) in [COUNT * large.rgb().len() as u64, COUNT * 8].into_iter().enumerate() {
        let mut member = archive.by_index(at).unwrap();
        assert_eq!(member.size(), 128 + size);
        std::io::copy(&mut member, &mut std::io::sink()).unwrap(); // verifies the checksum
    }
}
