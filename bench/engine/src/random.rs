//! Random weights that behave: activations stay near one through every block, no gate is zero, and so every mistake shows.

use dit_config::{DitConfig, TensorSpec};
use dit_model::position_table;
use tch::{Device, Kind, Tensor};

/// A transformer's.
pub fn dit(config: &DitConfig) -> Vec<(String, Tensor)> {
    let tensor = |spec: &TensorSpec| match spec.name.as_str() {
        "pos_embed" => position_table(config).to_kind(Kind::Float).view(&*shape(spec)),
        name if name.contains("adaLN_modulation") => normal(spec, 0.3),
        "y_embedder.embedding_table.weight" => Tensor::randn(shape(spec), (Kind::Float, Device::Cpu)) * 0.5,
        _ => normal(spec, 1.0),
    };
    config.tensors().iter().map(|spec| (spec.name.clone(), tensor(spec))).collect()
}

/// A VAE's: norms near the identity.
pub fn vae(specs: &[TensorSpec]) -> Vec<(String, Tensor)> {
    let tensor = |spec: &TensorSpec| {
        let is_norm = spec.shape.len() == 1 && spec.name.ends_with("weight");
        if is_norm { Tensor::randn(shape(spec), (Kind::Float, Device::Cpu)) * 0.2 + 1.0 } else { normal(spec, 1.0) }
    };
    specs.iter().map(|spec| (spec.name.clone(), tensor(spec))).collect()
}

/// Standard deviation `gain` / √fan-in; biases small.
fn normal(spec: &TensorSpec, gain: f64) -> Tensor {
    let fan_in: usize = spec.shape.iter().skip(1).product();
    let std = if spec.shape.len() == 1 { 0.02 } else { gain / (fan_in as f64).sqrt() };
    Tensor::randn(shape(spec), (Kind::Float, Device::Cpu)) * std
}

fn shape(spec: &TensorSpec) -> Vec<i64> {
    spec.shape.iter().map(|&extent| extent as i64).collect()
}
