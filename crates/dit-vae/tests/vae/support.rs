//! Fixtures, small autoencoders and measures that the tests share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dit_config::{VaeConfig, VaeSpec};
use dit_vae::{AutoencoderKl, Kernels};
use dit_weights::VaeCheckpoint;
use tch::{Device, Kind, Tensor};

/// A path from the workspace's root.
pub fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The tensors of a safetensors file.
pub fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let read = Tensor::read_safetensors(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    read.into_iter().collect()
}

/// The autoencoder of a diffusers folder.
pub fn load(folder: &Path, kind: Kind) -> AutoencoderKl {
    load_with(folder, kind, Kernels::Fused)
}

/// The same with a choice of kernels.
pub fn load_with(folder: &Path, kind: Kind, kernels: Kernels) -> AutoencoderKl {
    AutoencoderKl::load_with(&VaeCheckpoint::open(folder).unwrap(), Device::Cpu, kind, kernels).unwrap()
}

/// Random weights, the same for every call: no tensor is all zero or all one, and activations stay near one.
pub fn random(spec: VaeSpec) -> AutoencoderKl {
    random_with(spec, Kind::Float, Kernels::Fused)
}

/// The same in a kind and with a choice of kernels.
pub fn random_with(spec: VaeSpec, kind: Kind, kernels: Kernels) -> AutoencoderKl {
    let config = VaeConfig::new(spec).unwrap();
    let weights = random_weights(&config);
    AutoencoderKl::from_tensors(config, weights, Device::Cpu, kind, kernels).unwrap()
}

/// See [`random`].
pub fn random_weights(config: &VaeConfig) -> BTreeMap<String, Tensor> {
    let mut seed = 0;
    let tensor = |spec: dit_config::TensorSpec| {
        seed += 1;
        let noise = wave(&spec.shape.iter().map(|&extent| extent as i64).collect::<Vec<_>>(), seed);
        let fan_in: usize = spec.shape[1..].iter().product();
        let values = match (spec.shape.len(), spec.name.contains("norm") && spec.name.ends_with("weight")) {
            (1, true) => noise * 0.2 + 1.0,
            (1, false) => noise * 0.1,
            _ => noise / (fan_in as f64).sqrt(),
        };
        (spec.name, values)
    };
    config.tensors().into_iter().map(tensor).collect()
}

/// Values of about unit variance that look random, from a formula rather than a generator's shared state.
pub fn wave(shape: &[i64], seed: i64) -> Tensor {
    let n: i64 = shape.iter().product();
    let x = Tensor::arange_start(seed * 1_000_003, seed * 1_000_003 + n, (Kind::Double, Device::Cpu));
    // The fractional part of a large multiple of a sine is uniform to the eye; ±√3 has variance 1.
    let uniform = (x * 12.9898).sin() * 43758.5453;
    let uniform = &uniform - uniform.floor();
    ((uniform - 0.5) * (2.0 * 3f64.sqrt())).to_kind(Kind::Float).reshape(shape)
}

/// ‖a − b‖ / ‖b‖.
pub fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((&a - &b).norm() / b.norm()).double_value(&[])
}

/// Peak signal-to-noise ratio in dB of images in [−1, 1], whose peak is 2.
pub fn psnr(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let mse = (a - b).to_kind(Kind::Double).square().mean(Kind::Double).double_value(&[]);
    10.0 * (4.0 / mse).log10()
}
