//! What is written, when it appears, and what is refused.

use std::{fs, io::Write, path::Path};

use dit_files::{AtomicFile, ensure_folder, ensure_writable};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_on_commit_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    fs::write(&path, "old").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()).len(), 2);
    file.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a.bin"]);
}

#[test]
fn an_abandoned_file_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = AtomicFile::create(&folder.path().join("a.bin")).unwrap();
    file.write_all(b"half").unwrap();
    drop(file);
    ensure_writable(&folder.path().join("b.bin")).unwrap();
    assert!(names(folder.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_modes_are_ordinary() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    let plain = folder.path().join("plain");
    fs::write(&real, "old").unwrap();
    fs::write(&plain, "for its mode").unwrap();
    symlink(&real, &link).unwrap();
    let mut file = AtomicFile::create(&link).unwrap();
    file.write_all(b"new").unwrap();
    file.commit().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), b"new");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&real), mode(&plain));
}

#[track_caller]
fn check_refused(path: &Path, expected: &str) {
    let error = ensure_writable(path).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn impossible_places_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    check_refused(&folder.path().join("no/a.png"), "no does not exist; create it");
    check_refused(&file.join("a.png"), "file is not a folder");
    check_refused(folder.path(), "is a folder");
    check_refused(Path::new("/"), "is a folder");
    check_refused(Path::new(""), "not the name of a file");
    check_refused(&folder.path().join("new/"), "not the name of a file");
    #[cfg(unix)]
    check_refused(Path::new("/dev/null"), "is a device");
}

#[test]
fn folders_are_made_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b");
    ensure_folder(&deep).unwrap();
    ensure_folder(&deep).unwrap();
    assert!(names(&deep).is_empty());
    fs::write(deep.join("file"), "").unwrap();
    for way in ["file", "file/c"] {
        let error = ensure_folder(&deep.join(way)).unwrap_err().to_string();
        assert!(error.contains("b/file is not a folder"), "{error}");
    }
}
