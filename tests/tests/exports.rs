//! What `convert` writes, loaded by the programs that it is written for.

use std::{ffi::OsStr, fs, path::Path, process::Command};

use dit_image::{Caption, Picture, write_png};
use dit_model::{Dit, Numerics};
use dit_tests::{fixture, read_tensor, relative_error, root, succeed_in};
use dit_weights::{Checkpoint, OpenOptions};
use tch::{Device, Kind, Tensor};

/// Some two hundred fp32 roundings.
const TOLERANCE: f64 = 2e-5;

/// A Python with torch, safetensors and diffusers, if one is named.
fn python() -> Option<std::ffi::OsString> {
    let python = std::env::var_os("DIT_PYTHON");
    if python.is_none() {
        eprintln!("SKIPPED: set DIT_PYTHON to a Python with torch, safetensors and diffusers");
    }
    python
}

/// What Python is given.
struct Inputs {
    x: Tensor,
    t: Tensor,
    labels: Tensor,
}

/// The forward pass of the weights in `file`.
fn forward(file: &Path, numerics: Numerics, inputs: &Inputs) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let options = OpenOptions { numerics: Some(numerics), ..OpenOptions::default() };
    let dit = Dit::load(&Checkpoint::open(file, &options).unwrap(), Device::Cpu, Kind::Float).unwrap();
    dit.try_forward(&inputs.x, &inputs.t, &inputs.labels).unwrap()
}

#[track_caller]
fn check_output(folder: &Path, name: &str, ours: &Tensor) {
    let error = relative_error(&read_tensor(&folder.join("outputs.safetensors"), name), ours);
    eprintln!("{name}: relative error {error:.1e}");
    assert!(error < TOLERANCE, "{name}: relative error {error:.1e}, at most {TOLERANCE:.0e} expected");
}

/// `model`, which `how` turns into a conversion of the weights in `file`, computes the same in PyTorch and in diffusers. It has 8 × 8
/// latents of 4 channels, and `classes`.
#[track_caller]
fn check(python: &OsStr, at: &Path, model: &str, how: &[&str], file: &Path, classes: i64) {
    let convert = |to: &[&str]| succeed_in(at, &[&["convert", model], to, how].concat());
    convert(&["model.pt"]);
    convert(&["hub", "--layout", "diffusers"]);
    fs::write(at.join("config.json"), succeed_in(at, &["inspect", model, "--json"]).stdout).unwrap();

    tch::manual_seed(0);
    let x = Tensor::randn([4, 4, 8, 8], (Kind::Float, Device::Cpu));
    let t = Tensor::from_slice(&[0_i64, 17, 500, 999]);
    let labels = Tensor::from_slice(&[0_i64, classes / 2, classes - 1, classes]); // the last is the null class
    Tensor::write_safetensors(&[("x", &x), ("t", &t), ("y", &labels)], at.join("inputs.safetensors")).unwrap();
    let status = Command::new(python).arg(fixture("load_exports.py")).arg(at).status().unwrap();
    assert!(status.success(), "load_exports.py: {status}");

    let inputs = Inputs { x, t, labels };
    let ours = forward(file, Numerics::Original, &inputs);
    assert!(ours.abs().max().double_value(&[]) > 0.01, "outputs that are next to nothing prove nothing");
    check_output(at, "original", &ours);
    check_output(at, "diffusers_original_timesteps", &ours);
    // Numerics::Diffusers has the published folders' epsilon in the second norm, 1e-5 instead of the export's 1e-6: 1e-6 of the result.
    check_output(at, "diffusers", &forward(file, Numerics::Diffusers, &inputs));
}

#[test]
fn pytorch_and_diffusers_load_what_is_converted_and_compute_the_same() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let demo = root().join("weights/demo/dit-fashion.safetensors");
    check(&python, folder.path(), "dit-fashion-demo", &[], &demo, 10);
}

/// So few steps, from a beginning in which every block is the identity, need large ones to show.
const RECIPE: &str = "
[model]
hidden = 48
depth = 2
heads = 3
patch = 2
[train]
steps = 20
batch_size = 4
[optim]
lr = 1e-2
[ema]
decays = [0.5, 0.9]
";

#[test]
fn they_load_the_averages_of_a_run_too() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for index in 0..8_u32 {
        let class = at.join("data").join(["cats", "dogs"][index as usize % 2]);
        fs::create_dir_all(&class).unwrap();
        let pixels = (0..32 * 32 * 3_u32).map(|place| (place * (index + 1) / 7) as u8).collect();
        let picture = Picture::from_rgb(pixels, 32, 32).unwrap();
        write_png(class.join(format!("{index}.png")), &picture, &Caption::default()).unwrap();
    }
    let vae = fixture("vae-small");
    let precompute = ["precompute-latents", "--data", "data", "--out", "latents", "--image-size", "32", "--vae"];
    succeed_in(at, &[&precompute[..], &[vae.to_str().unwrap()]].concat());
    fs::write(at.join("recipe.toml"), RECIPE).unwrap();
    succeed_in(at, &["train", "--config", "recipe.toml", "--data", "latents", "--out", "run", "--device", "cpu"]);
    let average = at.join("run/checkpoints/step-00000020/ema-0.5.safetensors");
    check(&python, at, "run", &["--ema"], &average, 2);
}
