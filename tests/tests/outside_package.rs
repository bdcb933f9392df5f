//! A package outside the workspace that depends on two of its crates by path.

use std::{fs, process::Command};

use dit_tests::root;

const MAIN: &str = include_str!("../fixtures/outside_package/main.rs");

#[test]
fn an_outside_package_builds_and_runs() {
    // Below the workspace's folder, so that cargo finds where libtorch is; a workspace of its own all the same.
    let folder = root().join("target/outside-package");
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // The same profiles, so that tch need not be compiled a second time.
    let profiles = manifest.find("[profile.dev]").map_or("", |start| &manifest[start..]);
    let package = "[package]\nname = \"outside-package\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n";
    let dependencies = "[dependencies]\ndit-diffusion = { path = \"../../crates/dit-diffusion\" }\n\
        dit-model = { path = \"../../crates/dit-model\" }\ntch = \"=0.24.0\"\n\n";
    fs::write(folder.join("Cargo.toml"), format!("{package}{dependencies}{profiles}")).unwrap();
    fs::write(folder.join("src/main.rs"), MAIN).unwrap();
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--target-dir"])
        .arg(root().join("target"))
        .current_dir(&folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[2, 4, 32, 32]", "{stderr}");
}
