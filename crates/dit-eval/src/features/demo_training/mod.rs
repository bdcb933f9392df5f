//! Training of the small classifier: minutes on a CPU, a step at a time.

mod pictures;
mod recipe;
mod state;
mod trainee;

use std::{collections::BTreeMap, path::Path};

use dit_ops::{AdamW, AdamWKernel, AdamWOptions};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tch::{Device, Kind, Tensor, nn};

pub use self::{pictures::GreyPictures, recipe::FeatureRecipe};
use self::{
    pictures::shuffle,
    state::{Header, Identity},
    trainee::Trainee,
};
use super::demo::{DemoFeatures, DemoNotes, SIDE};
use crate::{Error, numbers::enough};

/// How training goes, after each epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochReport {
    /// Epochs done.
    pub epoch: u32,
    /// Mean cross entropy over the epoch, in nats.
    pub loss: f64,
    /// Fraction of the test set that is classified rightly.
    pub accuracy: f64,
}

/// What a step tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureReport {
    /// Steps taken, this one included.
    pub step: u64,
    /// Of the epoch, where the step was its last.
    pub epoch: Option<EpochReport>,
}

/// The classifier in training.
///
/// Every random number is a function of the recipe's seed, and [`save`](Self::save) keeps everything else: a training that was stopped
/// and continued gives the bits of one that was not, with as many threads.
pub struct FeatureTraining<'a> {
    train: &'a GreyPictures,
    test: &'a GreyPictures,
    identity: Identity,
    trainee: Trainee,
    /// Parameters and the normalisations' running statistics, by name.
    variables: BTreeMap<String, Tensor>,
    /// The parameters among them, in order of their names: the optimizer's order.
    parameters: Vec<String>,
    optimizer: AdamW,
    random: ChaCha8Rng,
    /// Of this epoch.
    order: Vec<usize>,
    /// Of this epoch's steps, together.
    loss: f64,
}

impl<'a> FeatureTraining<'a> {
    /// From the beginning: on `train`, the accuracy being measured on `test`.
    ///
    /// libtorch's own generator is seeded here, for the weights.
    ///
    /// # Errors
    /// [`Error::TooFew`] for fewer pictures than a batch has, or none to test on.
    pub fn new(train: &'a GreyPictures, test: &'a GreyPictures, recipe: &FeatureRecipe) -> Result<Self, Error> {
        enough("pictures to train on", train.len(), recipe.batch_size)?;
        enough("pictures to test on", test.len(), 1)?;
        tch::manual_seed(recipe.seed as i64);
        let store = nn::VarStore::new(Device::Cpu);
        let trainee = Trainee::new(&store.root(), train.class_names.len());
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let trained = |(_, variable): &(&String, &Tensor)| variable.requires_grad();
        let parameters: Vec<String> = variables.iter().filter(trained).map(|(name, _)| name.clone()).collect();
        let options = AdamWOptions { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: recipe.weight_decay };
        let tensors: Vec<Tensor> = parameters.iter().map(|name| variables[name].shallow_clone()).collect();
        let optimizer = AdamW::new(&tensors, options, AdamWKernel::Fused)?;
        let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
        let mut order: Vec<usize> = (0..train.len()).collect();
        shuffle(&mut order, &mut random);
        let identity = Identity { recipe: recipe.clone(), pictures: train.sha256() };
        Ok(Self { train, test, identity, trainee, variables, parameters, optimizer, random, order, loss: 0.0 })
    }

    /// Continues from what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::OtherTraining`] where that was begun otherwise, [`Error::Weights`] where it cannot be read.
    pub fn resume(
        train: &'a GreyPictures,
        test: &'a GreyPictures,
        recipe: &FeatureRecipe,
        state: &Path,
    ) -> Result<Self, Error> {
        let mut training = Self::new(train, test, recipe)?;
        let (header, tensors) = state::read(state, &training.identity, &training.tensors()?)?;
        let _guard = tch::no_grad_guard();
        let mut tensors = tensors.into_iter();
        for (variable, value) in training.variables.values_mut().zip(&mut tensors) {
            variable.f_copy_(&value)?;
        }
        let mut moments = || tensors.by_ref().take(training.parameters.len()).collect::<Vec<_>>();
        training.optimizer.restore(header.step, &moments(), &moments())?;
        let order = tensors.next().map(|order| Vec::<i64>::try_from(&order)).transpose()?;
        training.order = order.unwrap_or_default().into_iter().map(|index| index as usize).collect();
        training.random.set_word_pos(u128::from(header.random));
        training.loss = f64::from_bits(header.loss);
        Ok(training)
    }

    /// Writes all that [`resume`](Self::resume) needs. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Weights`] where it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let header = Header {
            identity: self.identity.clone(),
            step: self.steps_taken(),
            // A few thousand numbers a step.
            random: self.random.get_word_pos() as u64,
            loss: self.loss.to_bits(),
        };
        state::write(path, &header, self.tensors()?)
    }

    /// All that a state holds, by name: variables, both moments of the parameters, the order.
    fn tensors(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let variables = self.variables.iter();
        let mut tensors: Vec<(String, Tensor)> =
            variables.map(|(name, variable)| (format!("variable.{name}"), variable.detach())).collect();
        let (exp_avg, exp_avg_sq) = self.optimizer.moments();
        for (group, moments) in [("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)] {
            let named = self.parameters.iter().zip(moments);
            tensors.extend(named.map(|(name, moment)| (format!("{group}.{name}"), moment.shallow_clone())));
        }
        let order: Vec<i64> = self.order.iter().map(|&index| index as i64).collect();
        tensors.push(("order".to_owned(), Tensor::f_from_slice(&order)?));
        Ok(tensors)
    }

    /// Steps of an epoch.
    fn steps_per_epoch(&self) -> usize {
        self.train.len() / self.identity.recipe.batch_size
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        u64::from(self.identity.recipe.epochs) * self.steps_per_epoch() as u64
    }

    /// Steps taken so far.
    pub fn steps_taken(&self) -> u64 {
        self.optimizer.steps_taken()
    }

    /// Whether all steps have been taken.
    pub fn is_done(&self) -> bool {
        self.steps_taken() >= self.steps()
    }

    /// Takes one step. After an error, what was trained is no longer that of a whole step.
    ///
    /// # Errors
    /// [`Error::Torch`], [`Error::Ops`].
    pub fn step(&mut self) -> Result<FeatureReport, Error> {
        let recipe = &self.identity.recipe;
        let (step, steps_per_epoch) = (self.steps_taken() as usize, self.steps_per_epoch());
        let first = step % steps_per_epoch * recipe.batch_size;
        let chosen = self.order.get(first..first + recipe.batch_size).unwrap_or_default();
        let (pictures, labels) = self.train.varied(chosen, recipe.largest_shift, &mut self.random);
        let loss = self.trainee.forward(&pictures, true).cross_entropy_for_logits(&labels);
        let mut parameters: Vec<Tensor> =
            self.parameters.iter().map(|name| self.variables[name].shallow_clone()).collect();
        let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
        let rate = recipe.rate(step, self.steps() as usize);
        self.optimizer.step(&mut parameters, &gradients, rate)?;
        self.loss += loss.f_double_value(&[])?;
        let step = step + 1;
        let mut report = FeatureReport { step: step as u64, epoch: None };
        if step.is_multiple_of(steps_per_epoch) {
            let accuracy = accuracy(self.test, |pictures| Ok(self.trainee.forward(pictures, false)))?;
            let loss = std::mem::take(&mut self.loss) / steps_per_epoch as f64;
            report.epoch = Some(EpochReport { epoch: (step / steps_per_epoch) as u32, loss, accuracy });
            shuffle(&mut self.order, &mut self.random);
        }
        Ok(report)
    }

    /// Writes the classifier to `out` as fp16 and returns it as loaded from there, with its accuracy on the pictures to test on. `notes` go
    /// into the file.
    ///
    /// # Errors
    /// [`Error::Torch`], [`Error::Weights`] where the file cannot be written.
    pub fn write(&self, out: &Path, mut notes: DemoNotes) -> Result<DemoFeatures, Error> {
        let convolutions = self.trainee.folded()?;
        let head_bias = self.trainee.head.bs.as_ref().ok_or(Error::NotAffine)?;
        let head = [&self.trainee.head.ws, head_bias];
        notes.class_names = self.train.class_names.clone();
        // Twice: the accuracy that the file states is that of the rounded weights.
        DemoFeatures::save(out, &convolutions, head, &notes)?;
        let rounded = DemoFeatures::load(out, Device::Cpu)?;
        notes.test_accuracy = Some(demo_accuracy(&rounded, self.test)?);
        DemoFeatures::save(out, &convolutions, head, &notes)?;
        DemoFeatures::load(out, Device::Cpu)
    }
}

/// Fraction of `pictures` that `network` classifies rightly.
///
/// # Errors
/// [`Error::Torch`].
pub fn demo_accuracy(network: &DemoFeatures, pictures: &GreyPictures) -> Result<f64, Error> {
    accuracy(pictures, |batch| network.logits(&network.features(batch)?))
}

fn accuracy(pictures: &GreyPictures, logits: impl Fn(&Tensor) -> Result<Tensor, Error>) -> Result<f64, Error> {
    const BATCH: usize = 500;
    let _guard = tch::no_grad_guard();
    let mut right = 0;
    for (levels, labels) in pictures.levels.chunks(BATCH * SIDE * SIDE).zip(pictures.labels.chunks(BATCH)) {
        let (batch, labels) = GreyPictures::batch(levels, labels);
        let found = logits(&batch)?.argmax(-1, false);
        right += found.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?.int64_value(&[]);
    }
    Ok(right as f64 / pictures.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> FeatureRecipe {
        let text =
            "epochs = 2\nbatch_size = 4\nlearning_rate = 0.01\nweight_decay = 0.02\nlargest_shift = 1\nseed = 3\n";
        FeatureRecipe::from_toml(text).unwrap()
    }

    /// Pictures of noise, brighter in the second class.
    fn pictures(count: usize) -> GreyPictures {
        let level = |index: usize| (index * 7919 % 101 + 100 * (index / (SIDE * SIDE) % 2)) as u8;
        GreyPictures {
            levels: (0..count * SIDE * SIDE).map(level).collect(),
            labels: (0..count as i64).map(|index| index % 2).collect(),
            class_names: vec!["dark".to_owned(), "bright".to_owned()],
        }
    }

    #[test]
    fn a_training_that_is_continued_gives_the_bytes_of_one_that_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let (train, test, state) = (pictures(14), pictures(6), folder.path().join("state"));
        let begin = folder.path().join("begin");
        let written = |training: &FeatureTraining| {
            let out = folder.path().join("out.safetensors");
            training.write(&out, DemoNotes::default()).unwrap();
            std::fs::read(out).unwrap()
        };
        let mut whole = FeatureTraining::new(&train, &test, &recipe()).unwrap();
        // Tests beside this one draw from the same generator, and would make other weights of the same seed.
        whole.save(&begin).unwrap();
        let reports: Vec<FeatureReport> = (0..6).map(|_| whole.step().unwrap()).collect();
        assert!(whole.is_done() && reports[2].epoch.is_some() && reports[5].epoch.is_some());
        // Stopped within each epoch, and between them.
        for stopped in [1, 2, 3, 5] {
            let mut first = FeatureTraining::resume(&train, &test, &recipe(), &begin).unwrap();
            for _ in 0..stopped {
                first.step().unwrap();
            }
            first.save(&state).unwrap();
            let mut rest = FeatureTraining::resume(&train, &test, &recipe(), &state).unwrap();
            let found: Vec<FeatureReport> = (stopped..6).map(|_| rest.step().unwrap()).collect();
            assert_eq!(found, reports[stopped..], "stopped after {stopped}");
            assert!(written(&rest) == written(&whole), "stopped after {stopped}");
        }
        let refused = |train: &GreyPictures, recipe: FeatureRecipe, expected: &str| {
            let message = FeatureTraining::resume(train, &test, &recipe, &state).err().unwrap().to_string();
            assert!(message.contains(expected), "{message}");
        };
        refused(&pictures(15), recipe(), "the pictures are others");
        refused(&train, FeatureRecipe { seed: 4, ..recipe() }, "seed: 3");
    }

    #[test]
    fn too_few_pictures_are_told_by_what_they_are_for() {
        for (train, test, expected) in [(3, 6, "3 pictures to train on"), (14, 0, "0 pictures to test on")] {
            let error = FeatureTraining::new(&pictures(train), &pictures(test), &recipe()).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
