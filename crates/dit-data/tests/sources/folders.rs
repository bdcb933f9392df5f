use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dit_data::{Source, SourceKind};

use crate::{check, check_refused, write};

fn unhex(text: &str) -> PathBuf {
    OsStr::from_bytes(&hex::decode(text).unwrap()).into()
}

/// `order.json` was compared with torchvision's `ImageFolder` itself.
#[test]
fn awkward_names_come_in_torchvisions_order() {
    #[derive(serde::Deserialize)]
    struct Order {
        files: Vec<String>,
        classes: Vec<String>,
        listed: Vec<(String, u32)>,
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/order.json");
    let order: Order = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (index, name) in order.files.iter().enumerate() {
        let path = folder.path().join(unhex(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, index.to_string()).unwrap();
    }
    let source = Source::open(folder.path()).unwrap();
    assert_eq!(source.class_names().len(), order.classes.len());
    assert_eq!(source.len(), order.listed.len());
    for (index, (name, label)) in order.listed.iter().enumerate() {
        let path = unhex(name);
        assert_eq!(source.record(index).key, path.to_string_lossy(), "record {index}");
        assert_eq!(source.record(index).label, *label, "record {index}");
        // Not only called so: it is that file.
        let bytes = std::fs::read(folder.path().join(&path)).unwrap();
        assert_eq!(source.read(index).unwrap(), dit_data::Encoded::File(bytes), "record {index}");
    }
}

#[test]
fn a_data_sets_folder_means_its_training_split() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("train/b/1.png", "b1"), ("train/a/2.JPEG", "a2"), ("val/a/3.png", "a3"), ("README", "")]);
    let expected = [("a/2.JPEG", "a", "a2"), ("b/1.png", "b", "b1")];
    check(folder.path(), SourceKind::Folder, &expected);
    check(&folder.path().join("train"), SourceKind::Folder, &expected);
    check(&folder.path().join("val"), SourceKind::Folder, &[("a/3.png", "a", "a3")]);
}

#[test]
fn a_class_may_be_called_train() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("train/1.png", "t"), ("bus/1.png", "b")]);
    check(folder.path(), SourceKind::Folder, &[("bus/1.png", "bus", "b"), ("train/1.png", "train", "t")]);
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    write(folder.path(), &[("root/a/1.png", "a1"), ("elsewhere/2.png", "e2"), ("elsewhere/deep/3.png", "e3")]);
    symlink(folder.path().join("elsewhere"), root.join("b")).unwrap();
    symlink(folder.path().join("elsewhere/2.png"), root.join("a/0.png")).unwrap();
    symlink("..", folder.path().join("elsewhere/deep/up")).unwrap();
    symlink(".", root.join("a/self")).unwrap();
    symlink(&root, root.join("a/outer")).unwrap();
    let expected = [
        ("a/0.png", "a", "e2"),
        ("a/1.png", "a", "a1"),
        // `root` is not above `a` on the way here, so `outer` is entered once.
        ("a/outer/b/2.png", "a", "e2"),
        ("a/outer/b/deep/3.png", "a", "e3"),
        ("b/2.png", "b", "e2"),
        ("b/deep/3.png", "b", "e3"),
    ];
    check(&root, SourceKind::Folder, &expected);
}

#[test]
fn a_file_that_is_gone_is_one_records_error() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("a/1.png", "1"), ("a/2.png", "2")]);
    symlink("nowhere", folder.path().join("a/3.png")).unwrap();
    let source = Source::open(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("a/1.png")).unwrap();
    std::fs::create_dir(folder.path().join("a/1.png")).unwrap();
    assert!(source.read(0).unwrap_err().to_string().contains("not a regular file"));
    assert_eq!(source.read(1).unwrap(), dit_data::Encoded::File(b"2".to_vec()));
    assert!(source.read(2).unwrap_err().to_string().contains("3.png"));
    assert_eq!(source.read(3).unwrap_err().to_string(), "cannot read record 3: there are only 3 records");
}

#[test]
fn what_is_no_class_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    check_refused(folder.path(), "no class folders");
    let flat = tempfile::tempdir().unwrap();
    write(flat.path(), &[("1.png", ""), (".2.png", ""), ("notes.txt", "")]);
    check_refused(flat.path(), "it holds 1 picture directly\n  help: put them into a folder");
    write(flat.path(), &[("3.JPG", "")]);
    check_refused(flat.path(), "it holds 2 pictures directly");
    let missing = Source::open(&folder.path().join("nothing")).unwrap_err();
    assert!(missing.to_string().contains("nothing: No such file"), "{missing}");
    write(folder.path(), &[("notes.txt", "hello")]);
    check_refused(&folder.path().join("notes.txt"), "no tar, parquet or IDX");
    write(folder.path(), &[("a/notes.txt", "")]);
    check_refused(folder.path(), "holds no labelled picture: none in a\n");
    write(folder.path(), &[("b/1.png", "")]);
    check_refused(folder.path(), "no picture in a");
}

#[test]
fn caches_and_hidden_folders_without_pictures_are_no_classes() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(
        here,
        &[("a/1.png", "a1"), ("b/2.png", "b2"), ("a.features/1-demo/0.safetensors", ""), (".git/x/config", "")],
    );
    // Until it says that it is a cache, it may be a class that somebody forgot to fill.
    check_refused(here, "no picture in a.features");
    dit_files::mark_as_cache(&here.join("a.features"), "features").unwrap();
    let expected = [("a/1.png", "a", "a1"), ("b/2.png", "b", "b2")];
    check(here, SourceKind::Folder, &expected);
    // Beside splits they are no other split.
    write(
        here,
        &[("set/train/a/1.png", "a1"), ("set/train/b/2.png", "b2"), ("set/val/a/3.png", "a3"), ("set/.idea/x", "")],
    );
    std::fs::create_dir(here.join("set/train.features")).unwrap();
    dit_files::mark_as_cache(&here.join("set/train.features"), "features").unwrap();
    check(&here.join("set"), SourceKind::Folder, &expected);
    // As torchvision has it, a hidden folder with pictures is a class: to leave it out would shift the others' labels.
    write(here, &[(".git/x/3.png", "g3")]);
    std::fs::remove_dir_all(here.join("set")).unwrap();
    let expected = [(".git/x/3.png", ".git", "g3"), ("a/1.png", "a", "a1"), ("b/2.png", "b", "b2")];
    check(here, SourceKind::Folder, &expected);
}

#[test]
fn the_fingerprint_tells_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let fingerprint = || Source::open(folder.path()).unwrap().fingerprint();
    write(folder.path(), &[("a/1.png", "1"), ("b/2.png", "2")]);
    let first = fingerprint();
    assert_eq!(fingerprint(), first);
    let mut seen = vec![first];
    write(folder.path(), &[("b/2.png", "22")]);
    seen.push(fingerprint());
    write(folder.path(), &[("a/0.png", "")]);
    seen.push(fingerprint());
    std::fs::rename(folder.path().join("a/0.png"), folder.path().join("b/0.png")).unwrap();
    seen.push(fingerprint());
    std::fs::rename(folder.path().join("b"), folder.path().join("c")).unwrap();
    seen.push(fingerprint());
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len());
}
