//! Every kind of source: what is listed, in which order, what is read, and what is refused.

mod folders;
mod idx;
mod tables;
mod tar_file;
mod tars;
mod unlabelled;

use std::path::Path;

use dit_data::{Encoded, Source, SourceKind};

/// What a source lists and holds: key, class name and bytes of each record.
fn contents(source: &Source) -> Vec<(String, String, String)> {
    let entry = |index| {
        let record = source.record(index);
        let bytes = match source.read(index).unwrap() {
            Encoded::File(bytes) => bytes,
            Encoded::Grey { levels, .. } => levels,
            _ => panic!("another kind of picture"),
        };
        let class = &source.class_names()[record.label as usize];
        (record.key.to_owned(), class.clone(), String::from_utf8_lossy(&bytes).into_owned())
    };
    (0..source.len()).map(entry).collect()
}

#[track_caller]
fn check(path: &Path, kind: SourceKind, expected: &[(&str, &str, &str)]) {
    let source = Source::open(path).unwrap();
    assert_eq!(source.kind(), kind);
    let found = contents(&source);
    let found: Vec<_> =
        found.iter().map(|(key, class, bytes)| (key.as_str(), class.as_str(), bytes.as_str())).collect();
    assert_eq!(found, expected);
}

/// Opening `path` fails with a message that contains `expected`, and says how to mend it.
#[track_caller]
fn check_refused(path: &Path, expected: &str) {
    let message = Source::open(path).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
    assert!(message.contains("help: "), "{message}");
}

/// Writes `files` (path and text) below `folder`.
fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
