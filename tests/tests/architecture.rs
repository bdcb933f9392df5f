//! docs/architecture.md against the manifests and sources: its drawing of the crates, its tables of crates and of dependencies, who
//! links libtorch, who prints.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use dit_tests::root;
use toml::{Table, Value};

fn manifest(path: &Path) -> Table {
    fs::read_to_string(path).expect("a manifest").parse().expect("TOML")
}

fn keys(table: &Table, of: &str) -> BTreeSet<String> {
    table.get(of).and_then(|value| value.as_table()).map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

/// The crates of the drawing, from the top to the bottom, and in a line from left to right.
fn drawing(text: &str) -> Vec<(usize, &str)> {
    let block =
        text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a drawing of the crates");
    block
        .lines()
        .enumerate()
        .flat_map(|(level, line)| {
            let (_, names) = line.split_at(line.find("  ").expect("a line's name and its crates"));
            names.split(',').map(move |name| (level, name.trim()))
        })
        .collect()
}

#[test]
fn crates_depend_downward_only_and_each_is_told_about() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let drawn = drawing(&text);
    let place = |name: &str| drawn.iter().position(|(_, other)| *other == name);
    let mut folders: Vec<_> =
        fs::read_dir(root().join("crates")).expect("crates").map(|entry| entry.expect("entry").path()).collect();
    folders.push(root().join("xtask"));
    for folder in folders {
        let name = folder.file_name().expect("a name").to_str().expect("ASCII").to_owned();
        let from = place(&name).unwrap_or_else(|| panic!("{name} is not in the drawing"));
        assert!(text.contains(&format!("\n| `{name}` | ")), "{name} is not in the table");
        for dependency in keys(&manifest(&folder.join("Cargo.toml")), "dependencies") {
            if !dependency.starts_with("dit-") {
                continue;
            }
            let to = place(&dependency).unwrap_or_else(|| panic!("{dependency} is not in the drawing"));
            assert!(to > from, "{name} depends on {dependency}, which is drawn above it or to its left");
        }
    }
}

#[test]
fn every_dependency_is_used_and_has_a_reason() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let reasons = text.split("## Dependencies").nth(1).expect("a section on dependencies");
    let told: BTreeSet<_> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|names| names.split(", "))
        .collect();
    let mut used = BTreeSet::new();
    for group in ["crates", "bench"] {
        for entry in fs::read_dir(root().join(group)).expect("a folder") {
            used.extend(dependencies(&entry.expect("entry").path()));
        }
    }
    for folder in ["xtask", "tests", "fuzz"] {
        used.extend(dependencies(&root().join(folder)));
    }
    used.retain(|name| !name.starts_with("dit-"));
    for name in &used {
        assert!(told.contains(name.as_str()), "{name} is used, and docs/architecture.md gives no reason");
    }
    let workspace = manifest(&root().join("Cargo.toml"));
    let offered = workspace["workspace"].as_table().map(|table| keys(table, "dependencies")).unwrap_or_default();
    for name in offered.iter().filter(|name| !name.starts_with("dit-")) {
        assert!(used.contains(name), "{name} is a dependency of the workspace, and nothing uses it");
    }
}

/// What a package's manifest depends on; nothing if the folder has none.
fn dependencies(folder: &Path) -> BTreeSet<String> {
    let path = folder.join("Cargo.toml");
    if !path.exists() {
        return BTreeSet::new();
    }
    let manifest = manifest(&path);
    ["dependencies", "dev-dependencies", "build-dependencies"].iter().flat_map(|kind| keys(&manifest, kind)).collect()
}

/// The manifest of a crate of `crates/`, or of xtask.
fn manifest_of(name: &str) -> Table {
    let folder = if name == "xtask" { root().join(name) } else { root().join("crates").join(name) };
    manifest(&folder.join("Cargo.toml"))
}

/// What a crate is linked with for one feature set or another, as (dependency, its features that are asked for): of every
/// platform, without what is optional.
fn linked(manifest: &Table, workspace: &Table) -> Vec<(String, Vec<String>)> {
    let own = manifest.get("dependencies").into_iter();
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = own.chain(platforms.filter_map(|platform| platform.get("dependencies")));
    let entries = tables.filter_map(Value::as_table).flatten();
    let linked = entries.filter(|(_, entry)| entry.get("optional").and_then(Value::as_bool) != Some(true));
    let features = |entry: Option<&Value>| -> Vec<String> {
        let listed = entry.and_then(|entry| entry.get("features")).and_then(Value::as_array);
        listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    linked
        .map(|(name, entry)| (name.clone(), [features(Some(entry)), features(workspace.get(name))].concat()))
        .collect()
}

#[test]
fn what_is_said_to_link_no_libtorch_links_none() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let said = text.split("\n- `xtask` links no libtorch").nth(1).and_then(|rest| rest.split("\n- ").next());
    let names = said.expect("an invariant about libtorch").split('`').filter(|name| name.starts_with("dit-"));
    let mut open: Vec<String> = names.map(str::to_owned).collect();
    assert!(open.iter().any(|name| name == "dit-weights"), "the names are read: {open:?}");
    open.push("xtask".to_owned());
    let root = manifest(&root().join("Cargo.toml"));
    let workspace = root["workspace"]["dependencies"].as_table().expect("the workspace's dependencies");
    let mut closed = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !closed.insert(name.clone()) {
            continue;
        }
        for (dependency, features) in linked(&manifest_of(&name), workspace) {
            assert!(dependency != "tch", "{name} depends on tch");
            assert!(!features.iter().any(|feature| feature == "tch"), "{name} asks for {dependency}'s feature tch");
            if dependency.starts_with("dit-") {
                open.push(dependency);
            }
        }
    }
}

/// The Rust files under a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn no_library_prints_or_reads_arguments() {
    for entry in fs::read_dir(root().join("crates")).expect("crates") {
        let folder = entry.expect("entry").path();
        if folder.ends_with("dit-cli") {
            continue;
        }
        let text = fs::read_to_string(folder.join("src/lib.rs")).expect("a library");
        let denied = text.lines().find_map(|line| line.strip_prefix("#![deny(")).unwrap_or_default();
        // clippy finds what breaks them.
        for lint in ["missing_docs", "clippy::print_stdout", "clippy::print_stderr", "clippy::unwrap_used"] {
            assert!(denied.contains(lint), "{}: lib.rs does not deny {lint}", folder.display());
        }
        for file in sources(&folder.join("src")) {
            let text = fs::read_to_string(&file).expect("a source");
            assert!(!text.contains("env::args"), "{} reads arguments", file.display());
        }
    }
}
