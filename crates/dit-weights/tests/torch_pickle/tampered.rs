//! Files of other kinds, and files that someone tampered with.

use dit_weights::{Error, TensorSource, TorchFile};
use proptest::prelude::*;

use crate::{fixtures, torch_fixture};

#[track_caller]
fn check_refused(bytes: &[u8], expected: &str) {
    let error = TorchFile::from_bytes("x.pt", bytes.to_vec()).unwrap_err().to_string();
    assert!(error.starts_with("x.pt") && error.contains(expected), "{expected:?} is not in: {error}");
}

#[test]
fn other_files_are_told_apart() {
    let fixture = |name| std::fs::read(torch_fixture(name)).unwrap();
    check_refused(b"", "is empty");
    check_refused(b"\n <!DOCTYPE html><html>", "is a web page");
    check_refused(b"\xef\xbb\xbf<html>", "is a web page");
    check_refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull");
    check_refused(&fixture("before-1.6.pt")[..1500], "cut short");
    check_refused(&fixture("plain.pkl"), "plain Python pickle");
    check_refused(&fixture("torchscript.pt"), "TorchScript");
    check_refused(&fixture("arrays.npz"), "without a data.pkl");
    check_refused(&fixture("compressed.pt"), "is compressed (method 8)");
    check_refused(&fixture("big-endian.pt"), "little-endian");
    check_refused(b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors");
    check_refused(b"GGUF", "neither a zip archive nor a pickle");
    check_refused(&fixture("protocol-2.pt")[..3000], "cut short");
}

#[test]
fn files_that_cannot_be_opened() {
    for path in [fixtures().join("missing.pt"), fixtures()] {
        let error = TorchFile::open(&path).unwrap_err();
        assert!(matches!(error, Error::Io { action: "open", .. }), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pt");
    std::fs::write(&empty, b"").unwrap();
    assert!(matches!(TorchFile::open(&empty), Err(Error::EmptyFile { .. })));
}

/// The fixture `name` with the bytes `from`, first found after the first `after`, replaced by as many others.
#[track_caller]
fn patched(name: &str, after: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = std::fs::read(torch_fixture(name)).unwrap();
    let find = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    let start = find(&bytes, after);
    let at = start + find(&bytes[start..], from);
    assert_eq!(from.len(), to.len());
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn tampered_archives_are_refused() {
    let check = |after: &[u8], from: &[u8], to: &[u8], expected| {
        check_refused(&patched("repacked.pt", after, from, to), expected);
    };
    // A header of the directory: PK 1 2, two versions of two bytes, flags.
    check(b"PK\x01\x02", b"\x14\x00\x00\x00", b"\x14\x00\x01\x00", "is encrypted");
    // A name that the entry itself does not have.
    check(b"PK\x01\x02", b"data/1", b"data/0", "not where the directory says");
    // The end record: PK 5 6, disks, two counts of two bytes, size, offset.
    check(b"PK\x05\x06", b"\x00\x00\x00\x00\x14\x00\x14", b"\x00\x00\x00\x00\x14\x00\x13", "longer than it says");
    check(b"PK\x05\x06", b"\x00\x00\x00\x00\x14\x00\x14", b"\x00\x00\x00\x00\x14\x00\x15", "is corrupt");
    check(b"data.pkl", b"X\x01\0\0\x000", b"X\x01\0\0\x00Z", r#"storage "Z" is not in the archive"#);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = std::fs::read(torch_fixture("training-protocol-2.pt")).unwrap();
    for len in 0..bytes.len() {
        let cut = TorchFile::from_bytes("cut.pt", bytes[..len].to_vec());
        assert!(cut.is_err(), "the first {len} of {} bytes were accepted", bytes.len());
    }
}

/// Reads everything that can be read: nothing may panic, and what is read is what was described.
fn exercise(bytes: Vec<u8>) {
    let Ok(file) = TorchFile::from_bytes("x.pt", bytes) else { return };
    for path in file.state_dicts() {
        let Ok(dict) = file.state_dict(path) else { continue };
        for (name, info) in dict.infos() {
            assert_eq!(dict.read(name).unwrap().info(), *info);
        }
    }
}

#[test]
fn every_single_flipped_bit() {
    for name in ["protocol-2.pt", "views.pt"] {
        let bytes = std::fs::read(torch_fixture(name)).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            exercise(flipped);
        }
    }
}

proptest! {
    #[test]
    fn several_changed_bytes(
        name in prop::sample::select(vec!["protocol-4.pt", "training-protocol-5.pt", "parameters.pt", "unusual.pt"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
        removed in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(torch_fixture(name)).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(at) = removed {
            bytes.remove(at.index(bytes.len()));
        }
        exercise(bytes);
    }
}
