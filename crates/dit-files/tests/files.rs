//! What is written, when it appears, and what is refused.

use std::{fs, io::Write, path::Path};

use dit_files::{
    AtomicFile, AtomicFolder, ensure_folder, ensure_writable, parts_of, remove_unfinished, write_atomically,
};

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

#[cfg(unix)]
#[test]
fn a_link_to_what_is_not_there_yet_stays_a_link() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("disk")).unwrap();
    symlink(at("disk/real"), at("absolute")).unwrap();
    symlink("disk/other", at("relative")).unwrap();
    symlink("relative", at("twice")).unwrap();
    for (link, real) in [("absolute", "disk/real"), ("twice", "disk/other")] {
        write_atomically(&at(link), b"new").unwrap();
        assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
        assert_eq!(fs::read(at(real)).unwrap(), b"new", "{link}");
    }
    symlink("gone/real", at("astray")).unwrap();
    check_refused(&at("astray"), "gone does not exist; create it");
    symlink("circle", at("circle")).unwrap();
    assert!(ensure_writable(&at("circle")).is_err());
    assert_eq!(names(folder.path()), ["absolute", "astray", "circle", "disk", "relative", "twice"]);
}

#[cfg(unix)]
#[test]
fn what_replaces_a_file_has_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o640, 0o444, 0o755] {
        let path = folder.path().join(format!("{mode:o}"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn a_folder_appears_on_commit_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let half = AtomicFolder::create(&path).unwrap();
    write_atomically(&half.path().join("a"), b"a").unwrap();
    assert!(!path.exists());
    drop(half);
    assert!(names(folder.path()).is_empty());

    let whole = AtomicFolder::create(&path).unwrap();
    write_atomically(&whole.path().join("a"), b"a").unwrap();
    whole.commit().unwrap();
    assert_eq!((names(folder.path()), names(&path)), (vec!["model".to_owned()], vec!["a".to_owned()]));
    assert!(AtomicFolder::create(&path).unwrap().commit().is_err(), "it is not empty");
    assert_eq!(names(folder.path()), ["model"]);
    let error = AtomicFolder::create(&folder.path().join("no/model")).unwrap_err().to_string();
    assert!(error.contains("no does not exist; create it"), "{error}");
}

/// Leaves what a process leaves that is killed while it writes.
fn killed(path: &Path) {
    let mut file = AtomicFile::create(path).unwrap();
    file.write_all(b"half").unwrap();
    std::mem::forget(file);
}

#[test]
fn what_a_killed_process_left_of_one_target_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    killed(&at("a"));
    killed(&at("a.txt"));
    let model = AtomicFolder::create(&at("model")).unwrap();
    killed(&model.path().join("weights"));
    std::mem::forget(model);
    for user in [".a.part", ".a..part", ".a.b c.part", "a.Xy1.part", ".a.Xy1"] {
        fs::write(at(user), "").unwrap();
    }
    let before = names(folder.path()).len();

    assert_eq!(remove_unfinished(&at("a")).unwrap().len(), 1);
    assert_eq!(remove_unfinished(&at("a")).unwrap().len(), 0);
    assert_eq!(remove_unfinished(&at("a.txt")).unwrap().len(), 1);
    assert_eq!(remove_unfinished(&at("model")).unwrap().len(), 1);
    assert_eq!(names(folder.path()).len(), before - 3);

    // A folder that was there before is written file by file.
    fs::create_dir(at("there")).unwrap();
    killed(&at("there/weights"));
    fs::write(at("there/config.json"), "").unwrap();
    assert_eq!(remove_unfinished(&at("there")).unwrap().len(), 1);
    assert_eq!(names(&at("there")), ["config.json"]);
    assert!(remove_unfinished(&at("no/x")).unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn what_was_left_behind_a_link_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("disk")).unwrap();
    std::os::unix::fs::symlink("disk/real", at("link")).unwrap();
    killed(&at("link"));
    assert_eq!(names(&at("disk")).len(), 1);
    assert_eq!(remove_unfinished(&at("link")).unwrap().len(), 1);
    assert!(names(&at("disk")).is_empty());
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

#[test]
fn a_part_is_kept_beside_the_place_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let path = root.join("all.npz");
    fs::write(&path, "of a former run").unwrap();
    assert!(parts_of(&path).is_empty());
    let parts = ["all.npz.interrupted", "all.npz.interrupted-2", "all.npz.interrupted-3"].map(|name| root.join(name));
    for (kept, part) in parts.iter().enumerate() {
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(format!("part {kept}").as_bytes()).unwrap();
        assert_eq!(file.commit_partial().unwrap(), *part);
        assert_eq!(fs::read_to_string(&path).unwrap(), "of a former run");
        for (kept, part) in parts[..=kept].iter().enumerate() {
            assert_eq!(fs::read_to_string(part).unwrap(), format!("part {kept}"));
        }
        assert_eq!(parts_of(&path), parts[..=kept]);
    }
    // They are not of those that nobody names and anybody clears up.
    assert!(!dit_files::is_unfinished("all.npz.interrupted"));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 4);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&path, root.join("link")).unwrap();
        assert_eq!(parts_of(&root.join("link")), parts);
    }
}
