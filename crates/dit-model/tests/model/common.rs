//! What the tests share.

use std::{collections::BTreeMap, path::PathBuf};

use dit_model::{BlockDesign, Dit, DitConfig, DitSpec, Initialization, LatentSize, Numerics, Sigma};
use tch::{Device, Kind, Tensor, nn::VarStore};

pub type Tensors = BTreeMap<String, Tensor>;

pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(path)
}

pub fn read(path: &str) -> Tensors {
    Tensor::read_safetensors(fixture(path)).unwrap().into_iter().collect()
}

/// A model with `weights`, whose names must be exactly the model's.
#[track_caller]
pub fn load(config: &DitConfig, weights: &Tensors, kind: Kind) -> (VarStore, Dit) {
    let mut store = VarStore::new(Device::Cpu);
    store.set_kind(kind);
    let dit = Dit::new(&store.root(), config, Initialization::Empty);
    let variables: Tensors = store.variables().into_iter().collect();
    assert_eq!(variables.keys().collect::<Vec<_>>(), weights.keys().collect::<Vec<_>>());
    let _no_grad = tch::no_grad_guard();
    for (name, mut variable) in variables {
        assert_eq!(variable.size(), weights[&name].size(), "{name}");
        variable.copy_(&weights[&name]);
    }
    (store, dit)
}

/// ‖a − b‖ / ‖b‖, in float64.
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((a - &b).norm() / b.norm()).double_value(&[])
}

#[track_caller]
pub fn check_close(what: &str, ours: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(ours.size(), expected.size(), "{what}");
    let error = relative_error(ours, expected);
    assert!(error <= tolerance, "{what}: relative error {error:.2e}, allowed {tolerance:.0e}"); // NaN fails
}

/// Numbers in [−1, 1] that depend on `seed` alone (libtorch's generator is shared by all tests of a program).
pub fn noise(shape: &[i64], seed: u64) -> Tensor {
    let numel = shape.iter().product::<i64>() as u64;
    let values: Vec<f64> = (0..numel).map(|i| (i as f64 * 12.9898 + seed as f64 * 78.233 + 0.5).sin()).collect();
    let wild = Tensor::from_slice(&values) * 43_758.545_3;
    ((&wild - wild.floor()) * 2.0 - 1.0).to_kind(Kind::Float).view(shape)
}

/// A small configuration of `block`: 4×6 latents of 4 channels, patch 2, 10 classes and the null class.
pub fn tiny(block: BlockDesign) -> DitConfig {
    DitConfig::new(DitSpec {
        block,
        hidden: 24,
        depth: 2,
        heads: 3,
        patch: 2,
        mlp_ratio: 4.0,
        in_channels: 4,
        latent: LatentSize { height: 4, width: 6 },
        num_classes: 10,
        label_dropout: 0.1,
        sigma: Sigma::Learned,
        numerics: Numerics::Original,
    })
    .unwrap()
}

/// A tiny model, every weight of it non-zero.
pub fn tiny_model(block: BlockDesign) -> (VarStore, Dit) {
    let store = VarStore::new(Device::Cpu);
    let dit = Dit::new(&store.root(), &tiny(block), Initialization::Reference { seed: 1 });
    randomise(&store);
    (store, dit)
}

/// Moves every trainable weight away from its initial value, zeros included.
pub fn randomise(store: &VarStore) {
    let _no_grad = tch::no_grad_guard();
    let variables: Tensors = store.variables().into_iter().collect();
    for (seed, (_, mut variable)) in variables.into_iter().filter(|(name, _)| name != "pos_embed").enumerate() {
        let shape = variable.size();
        let _ = variable.g_add_(&(noise(&shape, seed as u64) * 0.3));
    }
}

/// Latents, timesteps and labels for [`tiny`]: three samples, the last of the null class.
pub fn tiny_input() -> (Tensor, Tensor, Tensor) {
    (noise(&[3, 4, 4, 6], 99), Tensor::from_slice(&[0_i64, 500, 999]), Tensor::from_slice(&[3_i64, 9, 10]))
}

/// Whether the slow tests were asked for; says so where they were not.
pub fn slow_tests(what: &str) -> bool {
    let asked = std::env::var_os("DIT_SLOW_TESTS").is_some_and(|value| !value.is_empty() && value != "0");
    if !asked {
        eprintln!("SKIPPED: {what} (DIT_SLOW_TESTS=1 runs it)");
    }
    asked
}
