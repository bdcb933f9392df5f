//! `inspect`, `convert`, and what damaged or hostile files do to every command.

use std::{fs, path::Path};

use dit_tests::{fail_in, fixture, read_tensor, relative_error, root, run_in, succeed_in};
use serde_json::Value;
use tch::Tensor;

fn inspect(folder: &Path, file: &str) -> Value {
    serde_json::from_str(&succeed_in(folder, &["inspect", file, "--json"]).stdout).unwrap()
}

#[test]
fn inspect_names_what_a_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let demo = inspect(folder.path(), "dit-fashion-demo");
    assert_eq!(demo["config"]["heads"], 6);
    assert_eq!(demo["classes"][1], "Trouser");
    assert!(demo["macs"].as_u64().unwrap() > 0);
    assert_eq!(inspect(folder.path(), "vae-fashion-demo")["kind"], "VAE");
    let small = fixture("dit-fixed-sigma/model.pt");
    fail_in(folder.path(), &["inspect", small.to_str().unwrap()], &["heads", "--num-heads"]);
    let partly = run_in(folder.path(), &["inspect", small.to_str().unwrap()]).stdout;
    assert!(partly.contains("heads ?") && partly.contains("parameters"), "{partly}");
    let text = succeed_in(folder.path(), &["inspect", small.to_str().unwrap(), "--num-heads", "2"]).stdout;
    assert!(text.contains("DiT(hidden 32, depth 2, heads 2)/4") && text.contains("original"), "{text}");
    let diffusers = fixture("dit-diffusers");
    assert_eq!(inspect(folder.path(), diffusers.to_str().unwrap())["layout"], "diffusers");
}

#[test]
fn conversion_there_and_back_changes_no_latent() {
    let folder = tempfile::tempdir().unwrap();
    let demo = root().join("weights/demo/dit-fashion.safetensors");
    let convert = |from: &str, to: &str, more: &[&str]| {
        succeed_in(folder.path(), &[&["convert", from, to], more].concat());
    };
    convert(demo.to_str().unwrap(), "hub", &["--layout", "diffusers"]);
    convert("hub", "model.pt", &["--dtype", "f32"]);
    convert("model.pt", "back.safetensors", &["--num-heads", "6", "--dtype", "f16"]);
    let latents = |ckpt: &str, file: &str| {
        let args = ["--class", "1", "--steps", "3", "--vae", "none", "--latents", file, "--num-heads", "6"];
        succeed_in(folder.path(), &[&["sample", "--ckpt", ckpt], &args[..]].concat());
        read_tensor(&folder.path().join(file), "latents")
    };
    let first = latents(demo.to_str().unwrap(), "a");
    for (ckpt, file) in [("hub", "b"), ("model.pt", "c"), ("back.safetensors", "d")] {
        assert!(relative_error(&latents(ckpt, file), &first) < 1e-6, "{ckpt}");
    }
    fail_in(folder.path(), &["convert", "model.pt", "back.safetensors", "--num-heads", "6"], &["exists", "--force"]);
}

#[test]
fn other_networks_say_what_they_are() {
    let demo = root().join("weights/demo");
    let inspect = |file: &str, expected: &[&str]| drop(fail_in(&demo, &["inspect", file], expected));
    inspect("classifier-fashion.safetensors", &["is a classifier of noised latents", "sample --classifier"]);
    inspect("features-fashion.safetensors", &["is a feature network", "evaluate --features"]);
}

#[test]
fn damaged_and_hostile_checkpoints_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let whole = fs::read(root().join("weights/demo/dit-fashion.safetensors")).unwrap();
    fs::write(path("short.safetensors"), &whole[..whole.len() / 2]).unwrap();
    fs::write(path("header.safetensors"), &whole[..100]).unwrap();
    fs::write(path("huge.safetensors"), [&u64::MAX.to_le_bytes()[..], b"{}"].concat()).unwrap();
    fs::write(path("empty.pt"), b"").unwrap();
    fs::write(path("page.pt"), b"<!DOCTYPE html><html><body>404</body></html>").unwrap();
    fs::write(path("noise.pt"), (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>())
        .unwrap();
    let zip = fs::read(fixture("dit-fixed-sigma/model.pt")).unwrap();
    fs::write(path("short.pt"), &zip[..zip.len() - 1000]).unwrap();
    for (file, expected) in [
        ("short.safetensors", "short.safetensors"),
        ("header.safetensors", "header.safetensors"),
        ("huge.safetensors", "huge.safetensors"),
        ("empty.pt", "empty"),
        ("page.pt", "web page"),
        ("noise.pt", "noise.pt"),
        ("short.pt", "short.pt"),
        ("absent.pt", "does not exist"),
        ("dit-xl-2-257", "dit-xl-2-256"),
        ("te", "known are: dit-xl-2-256, dit-xl-2-512, dit-fashion-demo\n"),
        ("sd-vae-ft-ema", "is a vae"),
    ] {
        fail_in(folder.path(), &["sample", "--ckpt", file, "--out", "x.png"], &[expected]);
        // These take whatever kind it is.
        if !["sd-vae-ft-ema", "te"].contains(&file) {
            fail_in(folder.path(), &["inspect", file], &[expected]);
            fail_in(folder.path(), &["convert", file, "out.safetensors"], &[expected]);
        }
    }
    assert!(!path("out.safetensors").exists() && !path("x.png").exists());
}

#[test]
fn weights_with_nan_are_reported_and_not_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dit-learned-sigma/model.safetensors");
    let mut tensors = Tensor::read_safetensors(&model).unwrap();
    for (name, tensor) in &mut tensors {
        if name == "blocks.1.mlp.fc1.weight" {
            let _ = tensor.get(3).get(5).fill_(f64::NAN);
        }
    }
    Tensor::write_safetensors(&tensors, folder.path().join("nan.safetensors")).unwrap();
    let expected = ["blocks.1.mlp.fc1.weight"];
    let args = ["sample", "--ckpt", "nan.safetensors", "--num-heads", "4", "--vae", "none", "--latents", "z"];
    fail_in(folder.path(), &args, &expected);
    let ran = run_in(folder.path(), &["inspect", "nan.safetensors", "--num-heads", "4"]);
    assert!(ran.code == Some(1) && ran.stdout.contains("blocks.1.mlp.fc1.weight: 1 values"), "{ran:?}");
}

#[test]
fn the_wrong_model_and_the_wrong_vae_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dit-fixed-sigma/model.safetensors");
    let model = model.to_str().unwrap();
    let vae = fixture("vae-f8");
    // Three latent channels, and a codec of four.
    let args = ["sample", "--ckpt", model, "--num-heads", "2", "--vae", vae.to_str().unwrap(), "--cfg-scale", "1"];
    fail_in(folder.path(), &args, &["4 latent channels", "3"]);
    fail_in(folder.path(), &["sample", "--ckpt", model, "--num-heads", "3"], &["3 heads"]);
    fail_in(folder.path(), &["sample", "--ckpt", model, "--num-heads", "2"], &["which VAE", "--vae"]);
    fail_in(folder.path(), &["sample", "--ckpt", vae.to_str().unwrap()], &["VAE"]);
}

#[test]
fn pngs_without_a_recipe_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.png"), b"not a picture").unwrap();
    fail_in(folder.path(), &["sample", "--from-png", "text.png"], &["text.png", "PNG"]);
    fail_in(folder.path(), &["sample", "--from-png", "absent.png"], &["absent.png"]);
}

#[test]
fn help_fits_80_columns_and_has_examples() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        &["--help"][..],
        &["sample", "--help"],
        &["precompute-latents", "--help"],
        &["inspect", "--help"],
        &["convert", "--help"],
        &["completions", "--help"],
    ] {
        let help = succeed_in(folder.path(), command).stdout;
        let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{command:?}: {long:#?}");
        assert!(command.len() == 1 || help.contains("Example"), "{command:?} has no example");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeed_in(folder.path(), &["completions", shell]).stdout.contains("dit-cli"));
    }
}
