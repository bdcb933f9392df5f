//! What is there, what is not, and the command that brings it.

use std::fs;
use std::path::Path;

use dit_catalog::{Catalog, Error, WEIGHTS_DIR_VARIABLE, WeightsDir};

fn touch(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
}

/// With `files` in the weights folder, `name` is opened at `expected`, or the first missing file is `expected`.
#[track_caller]
fn check(files: &[&str], name: &str, expected: Result<&str, &str>) {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), files);
    let found = Catalog::builtin().unwrap().installed(name, &WeightsDir::at(root.path()));
    match (found, expected) {
        (Ok(path), Ok(expected)) => assert_eq!(path, root.path().join(expected)),
        (Err(Error::Missing { missing, .. }), Err(expected)) => assert_eq!(missing, root.path().join(expected)),
        (found, _) => panic!("{found:?}"),
    }
}

#[test]
fn checkpoints_lie_where_documented() {
    check(&["dit-xl-2-256.safetensors"], "dit-xl-2-256", Ok("dit-xl-2-256.safetensors"));
    check(&[], "dit-xl-2-256", Err("dit-xl-2-256.safetensors"));
    check(&["DiT-XL-2-256x256.pt"], "dit-xl-2-256", Err("dit-xl-2-256.safetensors"));
    check(&["dit-xl-2-256.safetensors/a"], "dit-xl-2-256", Err("dit-xl-2-256.safetensors"));

    let config = "sd-vae-ft-ema/config.json";
    let weights = "sd-vae-ft-ema/diffusion_pytorch_model.safetensors";
    check(&[config, weights], "sd-vae-ft-ema", Ok("sd-vae-ft-ema"));
    check(&[config], "sd-vae-ft-ema", Err(weights));
    check(&[weights], "sd-vae-ft-ema", Err(config));

    let config = "demo/vae-fashion/config.json";
    let weights = "demo/vae-fashion/diffusion_pytorch_model.safetensors";
    check(&["demo/dit-fashion.safetensors"], "dit-fashion-demo", Ok("demo/dit-fashion.safetensors"));
    check(&[config, weights], "vae-fashion-demo", Ok("demo/vae-fashion"));
    check(&[config], "vae-fashion-demo", Err(weights));
}

#[track_caller]
fn check_default(files: &[&str], expected: Result<&str, &str>) {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), files);
    let catalog = Catalog::builtin().unwrap();
    match (catalog.default_checkpoint(&WeightsDir::at(root.path())), expected) {
        (Ok(entry), Ok(expected)) => assert_eq!(entry.name(), expected),
        (Err(Error::Missing { name, .. }), Err(expected)) => assert_eq!(name, expected),
        (found, _) => panic!("{found:?}"),
    }
}

#[test]
fn the_published_model_is_preferred_to_the_demo() {
    let demo = "demo/dit-fashion.safetensors";
    check_default(&[demo, "dit-xl-2-256.safetensors"], Ok("dit-xl-2-256"));
    check_default(&[demo, "dit-xl-2-512.safetensors"], Ok("dit-fashion-demo"));
    check_default(&[demo], Ok("dit-fashion-demo"));
    check_default(&[], Err("dit-fashion-demo"));
}

/// The manifest of a lab, which has no demo.
const LAB: &str = r#"{"checkpoints": [{"name": "dit-xl-2-256", "kind": "dit", "license": "MIT",
    "files": [{"path": "a.pt", "urls": ["https://h/a.pt"]}]}]}"#;

#[test]
fn the_command_repeats_what_was_chosen_by_hand() {
    let root = tempfile::tempdir().unwrap();
    let at = |folder: &str| WeightsDir::at(root.path().join(folder));
    let shown = root.path().display();
    let builtin = Catalog::builtin().unwrap();
    let command = "cargo xtask fetch-weights dit-xl-2-256";
    assert_eq!(builtin.fetch_command("dit-xl-2-256", &at("w")), format!("{command} --dir {shown}/w"));
    assert_eq!(builtin.fetch_command("dit-xl-2-256", &at("it's")), format!(r"{command} --dir '{shown}/it'\''s'"));

    touch(root.path(), &["w/x"]);
    fs::write(root.path().join("w/manifest.json"), LAB).unwrap();
    let lab = Catalog::of(&at("w")).unwrap();
    assert_eq!(lab.entries().len(), 1);
    assert_eq!(lab.fetch_command("dit-xl-2-256", &at("w")), format!("{command} --dir {shown}/w"));
    assert_eq!(
        lab.fetch_command("dit-xl-2-256", &at("v")),
        format!("{command} --dir {shown}/v --manifest {shown}/w/manifest.json")
    );
    assert_eq!(Catalog::of(&at("v")).unwrap(), builtin);
    let error = lab.default_checkpoint(&at("w")).unwrap_err().to_string();
    assert!(error.contains(&format!("`{command} --dir {shown}/w`")), "{error}");
}

/// The tests run within the repository, so the folder is found, and commands need not name it.
#[test]
fn the_repository_finds_itself() {
    if std::env::var_os(WEIGHTS_DIR_VARIABLE).is_some() {
        return; // whoever runs the tests keeps weights elsewhere
    }
    let found = WeightsDir::discover().unwrap();
    let catalog = Catalog::of(&found).unwrap();
    assert_eq!(catalog.entries(), Catalog::builtin().unwrap().entries());
    assert_eq!(catalog.fetch_command("dit-xl-2-256", &found), "cargo xtask fetch-weights dit-xl-2-256");
}

#[test]
fn a_missing_demo_points_to_the_repository() {
    let root = tempfile::tempdir().unwrap();
    let error = Catalog::builtin().unwrap().installed("dit-fashion-demo", &WeightsDir::at(root.path()));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("git checkout") && !error.contains("xtask"), "{error}");
}
