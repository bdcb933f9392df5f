//! docs/architecture.md against the manifests: its drawing of the crates, its tables of crates and of dependencies.

use std::{collections::BTreeSet, fs, path::Path};

use dit_tests::root;
use toml::Table;

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
