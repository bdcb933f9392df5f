//! Steps and gradients against a float64 computation with PyTorch, written from the mathematics: `tests/fixtures/training-steps`.

use std::path::PathBuf;

use dit_config::{BlockDesign, DitConfig, DitSpec};
use dit_data::shard::Position;
use dit_recipe::{Predict, Recipe, Sections, Timesteps, Weighting};
use dit_weights::{SafetensorsFile, to_tensor};
use tch::{Kind, Tensor};

use super::support::{difference, trainer};
use crate::{
    SampleLoss,
    feed::{RawBatch, StepData},
    timesteps::{LossHistory, Lot, TimestepSampler},
    trainer::{Stepped, Trainer},
};

const STEPS: i64 = 20;
/// Of the loss and its squared error, relative.
const LOSS: f64 = 1e-6;
/// Of the variational bound, in which fp32's cumulative normal leaves fewer digits at the first timesteps.
const BOUND: f64 = 2e-6;

struct Reference {
    file: SafetensorsFile,
    config: DitConfig,
    /// Before the names of everything in the file.
    prefix: String,
}

impl Reference {
    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/training-steps")).join(name)
    }

    /// Twenty steps.
    fn open() -> Self {
        let config = std::fs::read(Self::fixture("config.json")).unwrap();
        let file = SafetensorsFile::open(Self::fixture("steps.safetensors")).unwrap();
        Self { file, config: serde_json::from_slice(&config).unwrap(), prefix: String::new() }
    }

    /// One batch of another design's network.
    fn of_design(block: BlockDesign) -> Self {
        let file = SafetensorsFile::open(Self::fixture("designs.safetensors")).unwrap();
        let spec = DitSpec { block, hidden: 8, ..DitSpec::from(Self::open().config) };
        Self { file, config: DitConfig::new(spec).unwrap(), prefix: format!("{block}/") }
    }

    fn tensor(&self, name: &str) -> Tensor {
        to_tensor(&self.file, &format!("{}{name}", self.prefix)).unwrap()
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

/// Means of the loss and its terms against the reference's, relative.
#[track_caller]
fn check_losses(reference: &Reference, samples: &[SampleLoss], step: i64) {
    let expected = reference.tensor("losses").get(step).mean_dim(1, false, Kind::Double);
    let [mse, vb] = [0, 1].map(|term| expected.double_value(&[term]));
    let mean = |term: fn(&SampleLoss) -> f64| samples.iter().map(term).sum::<f64>() / samples.len() as f64;
    for (what, found, expected, tolerance) in [
        ("loss", mean(|sample| sample.total), mse + vb, LOSS),
        ("mse", mean(|sample| sample.mse.unwrap()), mse, LOSS),
        ("vb", mean(|sample| sample.vb.unwrap()), vb, BOUND),
    ] {
        let error = (found / expected - 1.0).abs();
        eprintln!("step {step}, {what}: {error:.1e} apart");
        assert!(error < tolerance, "step {step}, {what}: {found}, expected {expected}: {error:.1e} apart");
    }
}

/// The gradient of a key's bias is zero in exact arithmetic: it moves all scores of a softmax alike. AdamW divides the rounding
/// errors that are left by their own size, so what happens to it is noise in every implementation, and it has no effect.
fn without_key_bias(name: &str, tensor: &Tensor) -> Tensor {
    // Query, key, value; a cross-attention's key, value.
    let (parts, key) = match name {
        _ if name.ends_with("attn.qkv.bias") => (3, 1),
        _ if name.ends_with("cross_attn.kv.bias") => (2, 0),
        _ => return tensor.shallow_clone(),
    };
    let mut chunks = tensor.chunk(parts, 0);
    let _key = chunks.remove(key);
    Tensor::cat(&chunks, 0)
}

/// Where weights must be after training, and what else they are measured by.
struct Expected<'a> {
    reference: &'a Reference,
    file: &'a SafetensorsFile,
    /// Before the names.
    prefix: &'a str,
    /// Of a tensor's update since the start, in norms.
    of_update: f64,
}

impl Expected<'_> {
    /// The largest difference of a weight, and of a tensor's update relative to its norm, each with its tensor.
    fn errors<'n>(&self, names: &'n [String], found: &[Tensor]) -> [(f64, &'n str); 2] {
        let mut largest = [(0.0, ""); 2];
        for (name, found) in names.iter().zip(found) {
            let known = |tensor: &Tensor| without_key_bias(name, &tensor.detach()).to_kind(Kind::Double);
            let expected = known(&to_tensor(self.file, &format!("{}/{name}", self.prefix)).unwrap());
            let (found, start) = (known(found), known(&self.reference.tensor(&format!("start/{name}"))));
            let norm = |tensor: Tensor| tensor.norm().double_value(&[]);
            let of_update = norm(&found - &expected) / norm(&expected - &start);
            for (largest, error) in largest.iter_mut().zip([difference(&found, &expected), of_update]) {
                if error > largest.0 {
                    *largest = (error, name);
                }
            }
        }
        largest
    }

    #[track_caller]
    fn check(&self, names: &[String], found: &[Tensor]) {
        let [(absolute, of), (of_update, whose)] = self.errors(names, found);
        let prefix = self.prefix;
        eprintln!("{prefix}: at most {absolute:.1e} apart ({of}), {of_update:.1e} of an update ({whose})");
        assert!(absolute < 1e-5, "{prefix}/{of}: {absolute:.1e} apart");
        assert!(of_update < self.of_update, "{prefix}/{whose}: {of_update:.1e} of its update apart");
    }
}

fn check(sections: Sections) {
    let reference = Reference::open();
    let mut trainer = reference.trainer(sections);
    let names = trainer.network.names().to_vec();
    let expected = |prefix, of_update| Expected { reference: &reference, file: &reference.file, prefix, of_update };
    for step in 0..STEPS {
        let samples = take(&mut trainer, &reference.step(step), step as u64);
        check_losses(&reference, &samples, step);
        if step == 0 {
            expected("after_1", 1e-4).check(&names, trainer.network.masters());
        }
    }
    expected("after_20", 1e-3).check(&names, trainer.network.masters());
    expected("ema_0.9", 1e-3).check(&names, trainer.emas[0].weights());
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

/// What the optimizer is given in `options.safetensors`.
const ADAMW: [&str; 4] = ["optim.lr=1e-2", "optim.betas=[0.7, 0.9]", "optim.eps=1e-2", "optim.weight_decay=0.5"];

/// Three steps by a recipe with these keys: the largest error of a tensor's update, relative to its norm.
fn error_of_steps(keys: &[&str]) -> f64 {
    let reference = Reference::open();
    let file = SafetensorsFile::open(Reference::fixture("options.safetensors")).unwrap();
    let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
    let mut trainer = reference.trainer((*Recipe::from_toml("", &keys).unwrap()).clone());
    for step in 0..3 {
        take(&mut trainer, &reference.step(step), step as u64);
    }
    let expected = Expected { reference: &reference, file: &file, prefix: "adamw", of_update: 0.0 };
    let names = trainer.network.names().to_vec();
    let [_, (of_update, _)] = expected.errors(&names, trainer.network.masters());
    of_update
}

#[test]
fn the_optimizer_s_options_are_pytorch_s() {
    let error = error_of_steps(&ADAMW);
    assert!(error < 1e-4, "{error:.1e} of an update apart");
    // Each of them shows.
    for left_out in ADAMW {
        let others: Vec<&str> = ADAMW.into_iter().filter(|key| *key != left_out).collect();
        let error = error_of_steps(&others);
        assert!(error > 1e-2, "without {left_out}: {error:.1e} of an update apart");
    }
}

/// Of the parameters' gradients, where `expected` gives them: relative to each tensor's norm.
#[track_caller]
fn check_gradients(trainer: &Trainer, what: &str, tolerance: f64, expected: impl Fn(&str) -> Tensor) {
    let mut largest = 0.0_f64;
    for (name, parameter) in trainer.network.names().iter().zip(trainer.network.computing()) {
        let expected = without_key_bias(name, &expected(name));
        let found = without_key_bias(name, &parameter.grad());
        let error = (&found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
        assert!(error < tolerance, "{what}, {name}: {error:.1e} of its norm apart");
        largest = largest.max(error);
    }
    eprintln!("{what}: gradients at most {largest:.1e} of their norm apart");
}

/// Some hundred fp32 roundings.
const GRADIENT: f64 = 2e-5;

/// The gradient of the second batch for another target or weighting.
#[track_caller]
fn check_target(case: &str, predict: Predict, weighting: Weighting) {
    let reference = Reference::open();
    let targets = SafetensorsFile::open(Reference::fixture("targets.safetensors")).unwrap();
    let mut sections = Sections::default();
    (sections.diffusion.predict, sections.diffusion.weighting) = (predict, weighting);
    let mut trainer = reference.trainer(sections);
    take(&mut trainer, &reference.step(1), 0);
    check_gradients(&trainer, case, GRADIENT, |name| to_tensor(&targets, &format!("{case}/{name}")).unwrap());
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
fn timesteps_that_are_drawn_more_often_weigh_less_in_the_gradient() {
    let reference = Reference::open();
    let file = SafetensorsFile::open(Reference::fixture("options.safetensors")).unwrap();
    let case = "loss-second-moment";
    let numbers = |name: &str| Vec::<f64>::try_from(to_tensor(&file, &format!("{case}/{name}")).unwrap()).unwrap();
    let mut sections = Sections::default();
    sections.diffusion.timesteps = Timesteps::LossSecondMoment;
    let mut trainer = reference.trainer(sections);
    // As the script has them.
    let loss = |place: usize| (1.0 + (place / 10) as f64 / 250.0) * (0.8 + 0.04 * (place % 10) as f64);
    let history = LossHistory::from_parts((0..10_000).map(loss).collect(), vec![10; 1000]).unwrap();
    trainer.sampler = TimestepSampler::LossSecondMoment(history);
    let mut data = reference.step(1);
    data.lots.iter_mut().zip(numbers("unit")).for_each(|(lot, unit)| lot.unit = unit);
    let samples = take(&mut trainer, &data, 0);
    let timesteps: Vec<i64> = samples.iter().map(|sample| i64::from(sample.timestep)).collect();
    assert_eq!(timesteps, Vec::<i64>::try_from(reference.tensor("t").get(1)).unwrap());
    for (sample, weight) in samples.iter().zip(numbers("weight")) {
        assert!((sample.weight / weight - 1.0).abs() < 1e-12, "{} instead of {weight}", sample.weight);
    }
    check_gradients(&trainer, case, GRADIENT, |name| to_tensor(&file, &format!("{case}/{name}")).unwrap());
}

#[test]
fn the_first_gradient_is_that_of_the_mathematics() {
    let reference = Reference::open();
    let mut trainer = reference.trainer(Sections::default());
    take(&mut trainer, &reference.step(0), 0);
    check_gradients(&trainer, "first step", GRADIENT, |name| reference.tensor(&format!("gradient/{name}")));
}

#[test]
fn gradients_of_the_other_designs_are_those_of_the_mathematics() {
    for block in BlockDesign::ALL.into_iter().filter(|block| *block != BlockDesign::AdaLnZero) {
        for recompute in [false, true] {
            let reference = Reference::of_design(block);
            let mut sections = Sections::default();
            sections.train.checkpoint_activations = recompute;
            let mut trainer = reference.trainer(sections);
            let samples = take(&mut trainer, &reference.step(0), 0);
            check_losses(&reference, &samples, 0);
            let gradient = |name: &str| reference.tensor(&format!("gradient/{name}"));
            check_gradients(&trainer, &format!("{block}, recompute {recompute}"), GRADIENT, gradient);
        }
    }
}
