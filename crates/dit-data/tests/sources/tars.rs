use std::path::Path;

use dit_data::{Source, SourceKind};
use proptest::prelude::*;

use crate::tar_file::{Entry, attribute, entry, file, tar};
use crate::{check, check_refused, contents, write};

fn class_tars() -> [(&'static str, Vec<u8>); 2] {
    [
        ("n02", tar(&[file("n02_10.JPEG", "b10"), file("n02_9.JPEG", "b9"), file("notes.txt", "")])),
        ("n01", tar(&[file("n01_2.JPEG", "a2"), file("n01_1.JPEG", "a1")])),
    ]
}

const CLASSES: [(&str, &str, &str); 4] = [
    ("n01/n01_1.JPEG", "n01", "a1"),
    ("n01/n01_2.JPEG", "n01", "a2"),
    ("n02/n02_10.JPEG", "n02", "b10"),
    ("n02/n02_9.JPEG", "n02", "b9"),
];

/// ImageNet as it comes, half unpacked, and unpacked: the same records in the same order.
#[test]
fn class_tars_are_as_the_folder_they_unpack_to() {
    let folder = tempfile::tempdir().unwrap();
    let tars = class_tars();
    let outer = folder.path().join("train.tar");
    std::fs::write(&outer, tar(&tars.each_ref().map(|(name, bytes)| file(format!("{name}.tar"), bytes)))).unwrap();
    check(&outer, SourceKind::TarOfTars, &CLASSES);

    let loose = folder.path().join("loose");
    std::fs::create_dir(&loose).unwrap();
    for (name, bytes) in &tars {
        std::fs::write(loose.join(format!("{name}.tar")), bytes).unwrap();
    }
    check(&loose, SourceKind::ClassTars, &CLASSES);

    let unpacked = folder.path().join("unpacked");
    for (key, _, text) in CLASSES {
        write(&unpacked, &[(key, text)]);
    }
    check(&unpacked, SourceKind::Folder, &CLASSES);
    let fingerprints = [outer, loose, unpacked].map(|path| Source::open(&path).unwrap().fingerprint());
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]));
}

fn shard(first: usize, count: usize) -> Vec<u8> {
    let sample = |index: usize| {
        let label = if index.is_multiple_of(2) {
            file(format!("{index:04}.cls"), format!("{}\n", index % 3))
        } else {
            file(format!("{index:04}.json"), format!("{{\"label\": {}}}", index % 3))
        };
        [
            file(format!("{index:04}.JPG"), format!("picture {index}")),
            label,
            file(format!("{index:04}.txt"), "a caption"),
        ]
    };
    tar(&(first..first + count).flat_map(sample).collect::<Vec<_>>())
}

#[test]
fn webdatasets_are_read_shard_by_shard() {
    let folder = tempfile::tempdir().unwrap();
    for (name, first, count) in [("train-000", 0, 2), ("train-001", 2, 2), ("val-000", 4, 2)] {
        std::fs::write(folder.path().join(format!("{name}.tar")), shard(first, count)).unwrap();
    }
    let expected = [
        ("train-000/0000", "0", "picture 0"),
        ("train-000/0001", "1", "picture 1"),
        ("train-001/0002", "2", "picture 2"),
        ("train-001/0003", "0", "picture 3"),
    ];
    let kind = SourceKind::WebDataset;
    check(folder.path(), kind, &expected);
    check(&folder.path().join("train-{000..001}.tar"), kind, &expected);
    check(&folder.path().join("train-00{0,1}.tar"), kind, &expected);
    check(&folder.path().join("train-000.tar"), kind, &expected[..2]);
    check(
        &folder.path().join("{val}-{000..000}.tar"),
        kind,
        &[("val-000/0004", "1", "picture 4"), ("val-000/0005", "2", "picture 5")][..],
    );
    check_refused(&folder.path().join("train-{000..002}.tar"), "1 of its 3 files are missing");
    check_refused(&folder.path().join("train-{a..b}.tar"), "not understood");
    check_refused(&folder.path().join("train-{0..99999999}.tar"), "not understood");
    check_refused(&folder.path().join("train-{000"), "not understood");
}

#[test]
fn samples_need_labels_that_count_from_zero() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    let with = |label: Entry| {
        let good = [file("0.png", "p"), file("0.cls", "0")];
        std::fs::write(&path, tar(&good.into_iter().chain([file("1.png", "p"), label]).collect::<Vec<_>>())).unwrap();
    };
    for (label, expected) in [
        (file("2.cls", "1"), "shard/1 has no label"),
        (file("1.json", "{\"caption\": \"x\"}"), "shard/1 has no label"),
        (file("1.cls", "dog"), "1.cls holds no class number"),
        (file("1.cls", "-1"), "shard/1 has label -1"),
        (file("1.cls", "1000000"), "shard/1 has label 1000000"),
    ] {
        with(label);
        check_refused(&path, expected);
    }
    with(file("1.json", "7"));
    assert_eq!(Source::open(&path).unwrap().class_names().len(), 8);
}

/// An archive of class tars with `entries` in the one class.
fn class_tar(folder: &Path, entries: &[Entry]) -> std::path::PathBuf {
    let path = folder.join("outer.tar");
    std::fs::write(&path, tar(&[file("c.tar", tar(entries))])).unwrap();
    path
}

#[track_caller]
fn check_members(entries: &[Entry], expected: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(&class_tar(folder.path(), entries)).unwrap();
    let found = contents(&source);
    let found: Vec<_> = found.iter().map(|(key, _, bytes)| (key.as_str(), bytes.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing is unpacked");
}

#[test]
fn paths_cannot_lead_anywhere() {
    check_members(&[file("/etc/passwd.jpg", "x")], &[("c/etc/passwd.jpg", "x")]);
    check_members(&[file("../../up.jpg", "x"), file("a/./../b.jpg", "y")], &[("c/up.jpg", "x"), ("c/a/b.jpg", "y")]);
    check_members(&[file("a\x1b[31m\n.jpg", "x")], &[("c/a\u{fffd}[31m\u{fffd}.jpg", "x")]);
    check_members(&[file(b"\xff.jpg", "x")], &[("c/\u{fffd}.jpg", "x")]);
}

#[test]
fn only_plain_files_are_members() {
    let good = || file("good.jpg", "good");
    for kind in *b"123456" {
        // Their size means nothing: the next header follows at once.
        let odd = Entry { size: Some(5000), ..entry("odd.jpg", kind, "") };
        check_members(&[odd, good()], &[("c/good.jpg", "good")]);
    }
    check_members(&[entry("odd.jpg/", 0, ""), good()], &[("c/good.jpg", "good")]);
    check_members(&[entry("odd.jpg", b'M', "data"), good()], &[("c/good.jpg", "good")]);
    check_members(
        &[entry("old.jpg", 0, "old"), entry("packed.jpg", b'7', "7")],
        &[("c/old.jpg", "old"), ("c/packed.jpg", "7")],
    );
    let sparse = [entry("x", b'x', attribute("GNU.sparse.major", "1")), file("odd.jpg", "map"), good()];
    check_members(&sparse, &[("c/good.jpg", "good")]);
    check_members(&[entry("odd.jpg", b'S', "data"), good()], &[("c/good.jpg", "good")]);
}

#[test]
fn long_names_are_read() {
    let long = format!("{}.jpg", "long/".repeat(60));
    let expected = [(format!("c/{long}"), "x")];
    let expected: Vec<_> = expected.iter().map(|(key, text)| (key.as_str(), *text)).collect();
    check_members(&[entry("././@LongLink", b'L', format!("{long}\0")), file("short", "x")], &expected);
    check_members(&[entry("pax", b'x', attribute("path", &long)), file("short", "x")], &expected);
    check_members(&[Entry { prefix: b"some/folder", ..file("a.jpg", "x") }], &[("c/some/folder/a.jpg", "x")]);
    // A size of pax counts, not the header's.
    let sized = [
        entry("pax", b'x', attribute("size", "3")),
        Entry { size: Some(0), ..file("a.jpg", "abc") },
        file("b.jpg", "b"),
    ];
    check_members(&sized, &[("c/a.jpg", "abc"), ("c/b.jpg", "b")]);
    // Attributes for all members, and link targets, are passed over.
    let passed = [entry("g", b'g', attribute("path", "no.jpg")), entry("k", b'K', "target\0"), file("a.jpg", "x")];
    check_members(&passed, &[("c/a.jpg", "x")]);
}

#[test]
fn damaged_archives_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |entries: &[Entry], expected: &str| check_refused(&class_tar(folder.path(), entries), expected);
    refused(&[file("a.jpg", "x"), Entry { intact: false, ..file("b.jpg", "x") }], "not a tar header");
    refused(&[Entry { size: Some(1 << 30), ..file("a.jpg", "x") }], "the archive ends within a member");
    refused(&[entry("pax", b'x', "nonsense"), file("a.jpg", "x")], "pax attributes");
    refused(&[entry("pax", b'x', "999 path=x\n"), file("a.jpg", "x")], "pax attributes");
    refused(&[entry("pax", b'x', "3 path=x\n"), file("a.jpg", "x")], "pax attributes");
    refused(&[entry("pax", b'x', attribute("size", "-1")), file("a.jpg", "x")], "pax attributes");
    let huge = Entry { data: vec![b'a'; 2 << 20], ..entry("L", b'L', "") };
    refused(&[huge, file("a.jpg", "x")], "beyond all measure");

    // Cut anywhere within what it holds, the archive is refused; its last blocks are only filling.
    let path = folder.path().join("shard.tar");
    let whole = shard(0, 2);
    for length in (1..whole.len() - 1024).step_by(37).filter(|length| length % 512 != 0) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(Source::open(&path).is_err(), "cut at {length}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1024]).unwrap();
    assert_eq!(Source::open(&path).unwrap().len(), 2);
}

#[test]
fn gzipped_tars_are_to_be_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar.gz");
    std::fs::write(&path, [0x1F, 0x8B, 8, 0]).unwrap();
    check_refused(&path, "unpack it with gunzip");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is changed in an archive, it opens or is refused, and what it lists can be asked for.
    #[test]
    fn damage_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.tar");
        let long = entry("pax", b'x', attribute("path", "0.jpg"));
        let mut bytes = tar(&[long, file("short", "x"), file("0.cls", "0"), file("1.jpg", "y"), file("1.cls", "1")]);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(source) = Source::open(&path) {
            for index in 0..source.len() {
                let _: Result<_, _> = source.read(index);
            }
        }
    }
}
