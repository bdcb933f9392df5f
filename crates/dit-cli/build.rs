//! Tells the program which commit it is built from, for the record of a run.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What a program is made of; changes to anything else make no other program.
const SOURCES: [&str; 7] = [
    ":(glob)crates/*/src/**",
    ":(glob)crates/*/build.rs",
    ":(glob)crates/*/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
    MANIFEST,
    ":(exclude)crates/dit-fetch",
];
/// It is compiled in.
const MANIFEST: &str = "weights/manifest.json";
/// Only xtask is made of it.
const NOT_OURS: &str = "dit-fetch";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // cargo sets it for every build script.
    let Some(package) = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) else { return };
    let root = package.join("../..");
    // Without git, or in an unpacked archive, there is nothing to tell; what is watched then may become a repository.
    if let Some(commit) = commit(&root) {
        println!("cargo::rustc-env=DIT_GIT_COMMIT={commit}");
    }
    for path in watched(&root).iter().filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// Of the repository whose root is `root`, with a + where the sources are others.
fn commit(root: &Path) -> Option<String> {
    // Of an archive that lies within another repository, that one's commit would say nothing.
    let top = PathBuf::from(git(root, ["rev-parse", "--show-toplevel"])?);
    (fs::canonicalize(top).ok()? == fs::canonicalize(root).ok()?).then_some(())?;
    let commit = git(root, ["rev-parse", "HEAD"])?;
    let status = ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--"];
    let changed = git(root, status.iter().chain(&SOURCES))?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}

/// What changes with the commit, and the sources.
fn watched(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![root.join("Cargo.toml"), root.join("Cargo.lock"), root.join(MANIFEST)];
    let crates = fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
    let crates = crates.filter(|entry| entry.file_name() != NOT_OURS);
    paths.extend(crates.flat_map(|entry| ["src", "build.rs", "Cargo.toml"].map(|part| entry.path().join(part))));
    let in_git = |name: &str| git(root, ["rev-parse", "--git-path", name]).map(|path| root.join(path));
    let branch = git(root, ["symbolic-ref", "HEAD"]);
    // The log has a line for every move of HEAD; where none is kept, HEAD and its branch are files.
    let places = ["logs/HEAD", "HEAD", "packed-refs"].into_iter().chain(branch.as_deref());
    paths.extend(places.filter_map(in_git));
    paths
}

fn git<I: IntoIterator<Item: AsRef<OsStr>>>(root: &Path, arguments: I) -> Option<String> {
    let mut git = Command::new("git");
    // As a hook sets them, of whatever repository it runs for.
    git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
    let output = git.arg("-C").arg(root).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
