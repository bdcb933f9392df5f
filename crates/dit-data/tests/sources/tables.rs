//! Parquet files from `tests/fixtures/make_tables.py`.

use std::path::{Path, PathBuf};

use dit_data::{Encoded, Source, SourceKind};
use proptest::prelude::*;
use rayon::prelude::*;

use crate::check_refused;

fn table(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tables").join(name)
}

/// Record i holds `picture i` and has label i mod 3; asked for in any order, from any thread.
#[track_caller]
fn check_rows(name: &str, count: usize, key: impl Fn(usize) -> String + Sync) {
    let source = Source::open(&table(name)).unwrap();
    assert_eq!((source.kind(), source.len()), (SourceKind::Parquet, count), "{name}");
    let backwards = (0..count).rev().collect::<Vec<_>>();
    let scattered = (0..count).map(|index| index * 37 % count).collect();
    for order in [(0..count).collect(), backwards, scattered] {
        order.into_par_iter().for_each(|index| {
            assert_eq!(source.record(index).label as usize, index % 3, "{name} {index}");
            assert_eq!(source.record(index).key, key(index), "{name}");
            assert_eq!(source.read(index).unwrap(), Encoded::File(format!("picture {index}").into()), "{name} {index}");
        });
    }
}

#[test]
fn every_encoding_and_compression_is_read() {
    for name in ["snappy", "zstd", "gzip", "lz4", "none", "dictionary", "v2", "index"] {
        check_rows(&format!("{name}.parquet"), 90, |index| format!("{name}/{index:03}.jpg"));
    }
}

#[test]
fn tables_of_hugging_face_bring_class_names() {
    check_rows("hf.parquet", 50, |index| format!("hf/{index:03}.jpg"));
    assert_eq!(Source::open(&table("hf.parquet")).unwrap().class_names(), ["tench", "goldfish", "shark"]);
}

#[test]
fn other_layouts_are_understood() {
    check_rows("plain.parquet", 9, |index| format!("plain/{index:08}"));
    check_rows("no-paths.parquet", 9, |index| format!("no-paths/{index:08}"));
}

#[test]
fn a_null_is_one_records_error() {
    let source = Source::open(&table("holes.parquet")).unwrap();
    let found: Vec<bool> = (0..4).map(|index| source.read(index).is_ok()).collect();
    assert_eq!(found, [true, false, false, true]);
    assert_eq!(source.read(1).unwrap_err().to_string(), "cannot read holes/001.jpg: the table holds no bytes for it");
}

#[test]
fn tables_of_no_use_are_refused() {
    check_refused(&table("hidden.parquet"), "has label -1");
    check_refused(&table("unlabelled.parquet"), "no column of whole numbers");
    check_refused(&table("no-pictures.parquet"), "no column of pictures");
    check_refused(&table("empty.parquet"), "holds no labelled picture");
}

#[test]
fn a_folder_means_its_training_split() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for name in ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"] {
        std::fs::copy(table("no-paths.parquet"), data.join(name)).unwrap();
    }
    for path in [folder.path(), &data, &data.join("train-0000{0,1}-of-00002.parquet")] {
        let source = Source::open(path).unwrap();
        assert_eq!((source.kind(), source.len()), (SourceKind::Parquet, 18));
        assert_eq!(source.record(9).key, "train-00001-of-00002/00000009");
        assert_eq!(source.read(10).unwrap(), Encoded::File(b"picture 1".to_vec()));
    }
    assert_eq!(Source::open(&data.join("test-00000-of-00001.parquet")).unwrap().len(), 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is changed in a table, it opens or is refused, and records are read or are errors.
    #[test]
    fn damage_never_panics(
        name in prop::sample::select(vec!["hf.parquet", "dictionary.parquet", "v2.parquet", "zstd.parquet", "index.parquet"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let mut bytes = std::fs::read(table(name)).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(source) = Source::open(&path) {
            for index in 0..source.len().min(100) {
                let _: Result<_, _> = source.read(index);
            }
        }
    }
}
