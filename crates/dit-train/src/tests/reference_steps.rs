//! Twenty steps against a float64 computation with PyTorch, written from the mathematics: `tests/fixtures/training-steps`.

use std::path::PathBuf;

use dit_config::DitConfig;
use dit_data::shard::Position;
use dit_recipe::{Predict, Sections, Weighting};
use dit_weights::{SafetensorsFile, to_tensor};
use tch::{Kind, Tensor};

use super::support::{difference, trainer};
use crate::{
    SampleLoss,
    feed::{RawBatch, StepData},
    timesteps::Lot,
    trainer::{Stepped, Trainer},
};

const STEPS: i64 = 20;

struct Reference {
    file: SafetensorsFile,
    config: DitConfig,
}

impl Reference {
    fn folder() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/training-steps"))
    }

    fn open() -> Self {
        let folder = Self::folder();
        let config = std::fs::read(folder.join("config.json")).unwrap();
        let file = SafetensorsFile::open(folder.join("steps.safetensors")).unwrap();
        Self { file, config: serde_json::from_slice(&config).unwrap() }
    }

    fn tensor(&self, name: &str) -> Tensor {
        to_tensor(&self.file, name).unwrap()
    }

    fn trainer(&self, sections: Sections) -> Trainer {
        let mut sections = sections;
        sections.ema.decays = vec![0.9];
        trainer(&self.config, sections, |name, _| self.tensor(&format!("start/{name}")))
    }

    fn step(&self, step: i64) -> StepData {
        let values = |name: &str| self.tensor(name).get(step);
        let floats = |name: &str| Vec::<f32>::try_from(values(name).flatten(0, -1)).unwrap();
        let integers = |name: &str| Vec::<i64>::try_from(values(name)).unwrap();
        let labels = integers("y");
        let n = labels.len();
        let batch = RawBatch {
            latents: floats("x0"),
            noise: floats("noise"),
            shape: [n, 4, 4, 4],
            labels,
            records: (0..n as u64).collect(),
        };
        // The middle of the interval that a uniform draw maps to this timestep.
        let lot = |t: i64| Lot { unit: (t as f64 + 0.5) / 1000.0, normal: 0.0 };
        let lots = integers("t").into_iter().map(lot).collect();
        StepData { batch, lots, after: Position { epoch: 0, consumed: 0, seed: 0, records: 0 } }
    }
}

fn take(trainer: &mut Trainer, data: &StepData, taken: u64) -> Vec<SampleLoss> {
    match trainer.step(data, taken).unwrap() {
        Stepped::Taken { samples, .. } => samples,
        Stepped::NonFinite(report) => panic!("{report}"),
    }
}

/// Means of mse and vb against the reference's, relative.
#[track_caller]
fn check_losses(reference: &Reference, samples: &[SampleLoss], step: i64, tolerance: f64) {
    let expected = reference.tensor("losses").get(step).mean_dim(1, false, Kind::Double); // mse, vb
    let mean = |term: fn(&SampleLoss) -> f64| samples.iter().map(term).sum::<f64>() / samples.len() as f64;
    let found = [mean(|sample| sample.mse.unwrap()), mean(|sample| sample.vb.unwrap())];
    for (index, found) in found.into_iter().enumerate() {
        let expected = expected.double_value(&[index as i64]);
        let error = (found / expected - 1.0).abs();
        assert!(error < tolerance, "step {step}, term {index}: {found}, expected {expected}: {error:.1e} apart");
    }
}

/// The gradient of a key's bias is zero in exact arithmetic: it moves all scores of a softmax alike. AdamW divides the rounding
/// errors that are left by their own size, so what happens to it is noise in every implementation, and it has no effect.
fn without_key_bias(name: &str, tensor: &Tensor) -> Tensor {
    if !name.ends_with("attn.qkv.bias") {
        return tensor.shallow_clone();
    }
    let third = tensor.size()[0] / 3;
    Tensor::cat(&[tensor.narrow(0, 0, third), tensor.narrow(0, 2 * third, third)], 0)
}

#[track_caller]
fn check_weights(reference: &Reference, names: &[String], found: &[Tensor], prefix: &str, tolerance: f64) {
    for (name, found) in names.iter().zip(found) {
        let expected = reference.tensor(&format!("{prefix}/{name}"));
        let error = difference(&without_key_bias(name, &found.detach()), &without_key_bias(name, &expected));
        assert!(error < tolerance, "{prefix}/{name}: {error:.1e} apart");
    }
}

fn check(sections: Sections) {
    let reference = Reference::open();
    let mut trainer = reference.trainer(sections);
    let names = trainer.network.names().to_vec();
    for step in 0..STEPS {
        let samples = take(&mut trainer, &reference.step(step), step as u64);
        check_losses(&reference, &samples, step, if step == 0 { 1e-6 } else { 1e-5 });
        if step == 0 {
            check_weights(&reference, &names, trainer.network.masters(), "after_1", 1e-5);
        }
    }
    check_weights(&reference, &names, trainer.network.masters(), "after_20", 1e-5);
    check_weights(&reference, &names, trainer.emas[0].weights(), "ema_0.9", 1e-5);
}

#[test]
fn steps_are_those_of_the_mathematics() {
    check(Sections::default());
}

#[test]
fn recomputing_activations_and_accumulating_change_nothing() {
    let mut sections = Sections::default();
    sections.train.checkpoint_activations = true;
    sections.train.batch_size = 8;
    sections.train.accumulate = 4;
    check(sections);
}

/// The gradient of the second batch for another target or weighting.
#[track_caller]
fn check_target(case: &str, predict: Predict, weighting: Weighting) {
    let reference = Reference::open();
    let targets = SafetensorsFile::open(Reference::folder().join("targets.safetensors")).unwrap();
    let mut sections = Sections::default();
    (sections.diffusion.predict, sections.diffusion.weighting) = (predict, weighting);
    let mut trainer = reference.trainer(sections);
    take(&mut trainer, &reference.step(1), 0);
    for (name, parameter) in trainer.network.names().iter().zip(trainer.network.computing()) {
        let expected = without_key_bias(name, &to_tensor(&targets, &format!("{case}/{name}")).unwrap());
        let found = without_key_bias(name, &parameter.grad());
        let error = (&found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
        assert!(error < 2e-5, "{case}, {name}: {error:.1e} of its norm apart");
    }
}

#[test]
fn gradients_of_other_targets_and_weights_are_those_of_the_mathematics() {
    let weighted = Weighting::MinSnr(5.0);
    check_target("x0", Predict::X0, Weighting::Uniform);
    check_target("v", Predict::V, Weighting::Uniform);
    check_target("epsilon-min-snr", Predict::Epsilon, weighted);
    check_target("x0-min-snr", Predict::X0, weighted);
    check_target("v-min-snr", Predict::V, weighted);
}

#[test]
fn the_first_gradient_is_that_of_the_mathematics() {
    let reference = Reference::open();
    let mut trainer = reference.trainer(Sections::default());
    take(&mut trainer, &reference.step(0), 0);
    for (name, parameter) in trainer.network.names().iter().zip(trainer.network.computing()) {
        let expected = without_key_bias(name, &reference.tensor(&format!("gradient/{name}")));
        let found = without_key_bias(name, &parameter.grad());
        let error = (&found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
        assert!(error < 2e-5, "{name}: {error:.1e} of its norm apart");
    }
}
