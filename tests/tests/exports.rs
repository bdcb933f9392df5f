//! What `convert` writes, loaded by the programs that it is written for.

use std::{fs, path::Path, process::Command};

use dit_model::{Dit, Numerics};
use dit_tests::{fixture, read_tensor, relative_error, root, succeed_in};
use dit_weights::{Checkpoint, OpenOptions};
use tch::{Device, Kind, Tensor};

/// Some two hundred fp32 roundings.
const TOLERANCE: f64 = 2e-5;

/// Our forward pass.
fn forward(numerics: Numerics, x: &Tensor, t: &Tensor, labels: &Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let demo = root().join("weights/demo/dit-fashion.safetensors");
    let options = OpenOptions { numerics: Some(numerics), ..OpenOptions::default() };
    let dit = Dit::load(&Checkpoint::open(&demo, &options).unwrap(), Device::Cpu, Kind::Float).unwrap();
    dit.try_forward(x, t, labels).unwrap()
}

#[track_caller]
fn check(folder: &Path, name: &str, ours: &Tensor) {
    let error = relative_error(&read_tensor(&folder.join("outputs.safetensors"), name), ours);
    eprintln!("{name}: relative error {error:.1e}");
    assert!(error < TOLERANCE, "{name}: relative error {error:.1e}, at most {TOLERANCE:.0e} expected");
}

#[test]
fn pytorch_and_diffusers_load_what_is_converted_and_compute_the_same() {
    let Some(python) = std::env::var_os("DIT_PYTHON") else {
        eprintln!("skipped: set DIT_PYTHON to a Python with torch, safetensors and diffusers");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeed_in(at, &["convert", "dit-fashion-demo", "model.pt"]);
    succeed_in(at, &["convert", "dit-fashion-demo", "hub", "--layout", "diffusers"]);
    fs::write(at.join("config.json"), succeed_in(at, &["inspect", "dit-fashion-demo", "--json"]).stdout).unwrap();

    tch::manual_seed(0);
    let x = Tensor::randn([4, 4, 8, 8], (Kind::Float, Device::Cpu));
    let t = Tensor::from_slice(&[0_i64, 17, 500, 999]);
    let labels = Tensor::from_slice(&[0_i64, 3, 9, 10]); // the last is the null class
    Tensor::write_safetensors(&[("x", &x), ("t", &t), ("y", &labels)], at.join("inputs.safetensors")).unwrap();
    let status = Command::new(python).arg(fixture("load_exports.py")).arg(at).status().unwrap();
    assert!(status.success(), "load_exports.py: {status}");

    let ours = forward(Numerics::Original, &x, &t, &labels);
    check(at, "original", &ours);
    check(at, "diffusers_original_timesteps", &ours);
    // Numerics::Diffusers has the published folders' epsilon in the second norm, 1e-5 instead of the export's 1e-6: 1e-6 of the result.
    check(at, "diffusers", &forward(Numerics::Diffusers, &x, &t, &labels));
}
