use std::io::Write;
use std::path::Path;

use dit_data::{Encoded, Source, SourceKind};
use flate2::{Compression, write::GzEncoder};

use crate::check_refused;

fn header(extents: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, extents.len() as u8];
    bytes.extend(extents.iter().flat_map(|extent| extent.to_be_bytes()));
    bytes
}

fn idx(extents: &[u32], data: &[u8]) -> Vec<u8> {
    [header(extents), data.to_vec()].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Three pictures of 2 × 3 (height, width) and their labels.
fn pictures() -> Vec<u8> {
    idx(&[3, 2, 3], &(0..18).collect::<Vec<_>>())
}

fn labels() -> Vec<u8> {
    idx(&[3], &[4, 0, 9])
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[track_caller]
fn check_three(path: &Path) {
    let source = Source::open(path).unwrap();
    assert_eq!((source.kind(), source.len(), source.class_names().len()), (SourceKind::Idx, 3, 10));
    let labels: Vec<u32> = (0..3).map(|index| source.record(index).label).collect();
    assert_eq!(labels, [4, 0, 9]);
    assert_eq!(source.record(2).key, "00000002");
    assert_eq!(source.read(1).unwrap(), Encoded::Grey { width: 3, height: 2, levels: (6..12).collect() });
}

#[test]
fn plain_and_gzipped_files_are_one() {
    let folder = tempfile::tempdir().unwrap();
    for (images, labels_name, packed) in [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", [false, false]),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", [true, true]),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte", [false, false]),
        ("emnist-images-idx3-ubyte.gz", "emnist-labels-idx1-ubyte", [true, false]),
    ] {
        let folder = tempfile::tempdir_in(folder.path()).unwrap();
        let pack = |bytes: Vec<u8>, packed| if packed { gzip(&bytes) } else { bytes };
        put(folder.path(), labels_name, &pack(labels(), packed[1]));
        let images_path = put(folder.path(), images, &pack(pictures(), packed[0]));
        check_three(&images_path);
        if !images.starts_with("emnist") {
            check_three(folder.path());
        }
    }
}

#[test]
fn a_folder_of_four_files_is_its_training_split() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "t10k-images-idx3-ubyte", &idx(&[1, 1, 1], &[1]));
    put(folder.path(), "t10k-labels-idx1-ubyte", &idx(&[1], &[0]));
    put(folder.path(), "train-images-idx3-ubyte.gz", &gzip(&pictures()));
    put(folder.path(), "train-labels-idx1-ubyte.gz", &gzip(&labels()));
    check_three(folder.path());
    assert_eq!(Source::open(&folder.path().join("t10k-images-idx3-ubyte")).unwrap().len(), 1);
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("train-images-idx3-ubyte");
    let labels_path = put(folder.path(), "train-labels-idx1-ubyte", &labels());
    let refused = |bytes: &[u8], expected: &str| {
        std::fs::write(&images, bytes).unwrap();
        check_refused(&images, expected);
    };
    refused(&pictures()[..33], "17 bytes follow a header that promises 18");
    refused(&[pictures(), vec![0]].concat(), "19 bytes follow a header that promises 18");
    refused(&header(&[3, 2, 3])[..10], "no header");
    refused(&idx(&[u32::MAX; 3], &[]), "beyond all measure");
    refused(&idx(&[u32::MAX, u32::MAX, 1], &[]), "promises 18446744065119617025");
    refused(&idx(&[3, 0, 3], &[]), "0 pixels");
    refused(&idx(&[0, 2, 3], &[]), "0 pictures");
    refused(&idx(&[2, 2, 3], &[0; 12]), "3 labels for 2 pictures");

    // Gzipped: as long as the header promises, no shorter, no longer, and never more than is bearable.
    refused(&gzip(&pictures()[..33]), "another length than its header promises");
    refused(&gzip(&[pictures(), vec![0; 1 << 24]].concat()), "another length than its header promises");
    refused(&gzip(&idx(&[1 << 20, 1 << 10, 2], &[])), "unpacks to 2147483648 bytes, too many");
    refused(&gzip(&pictures())[..20], "cannot be unpacked");

    std::fs::write(&images, pictures()).unwrap();
    std::fs::write(&labels_path, idx(&[3, 1, 1], &[0; 3])).unwrap();
    check_refused(&images, "no header");
    std::fs::remove_file(&labels_path).unwrap();
    check_refused(&images, "no file of labels");
}
