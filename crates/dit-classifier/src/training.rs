use std::{collections::BTreeMap, path::Path};

use dit_data::shard::{BatchOptions, FlipChoice, Flips, LatentBatches, LatentFolder, Position, PosteriorDraw, Share};
use dit_ops::{AdamW, AdamWKernel, AdamWOptions};
use dit_random::unit;
use dit_vae::LatentScale;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::{
    About, Classifier, ClassifierSpec, Error,
    noising::{Noised, Noising},
    state,
};

/// The share of the steps in which the learning rate rises.
const WARM_UP: f64 = 0.02;

/// How a classifier is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingOptions {
    /// Steps in all.
    pub steps: u64,
    /// Latents of a step.
    pub batch_size: usize,
    /// The highest learning rate: it rises linearly over the first 2 % of the steps, and falls to 0 as half a cosine.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// What every random number is a function of.
    pub seed: u64,
}

impl TrainingOptions {
    fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        if self.steps == 0 {
            problems.push("--steps 0: there is nothing to train".to_owned());
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            problems.push(format!("--lr {}: expected a positive number, such as 1e-3", self.learning_rate));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            problems.push(format!("--weight-decay {}: expected 0 or a positive number", self.weight_decay));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Options(problems.join("\n"))) }
    }

    /// The learning rate of a step, counted from 0.
    fn rate(&self, step: u64) -> f64 {
        let warm_up = (WARM_UP * self.steps as f64).max(1.0);
        let done = step as f64 + 1.0;
        let rise = (done / warm_up).min(1.0);
        let fall = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / self.steps as f64).cos());
        self.learning_rate * rise * fall
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps taken so far, this one included.
    pub step: u64,
    /// Mean cross-entropy of the batch, in nats.
    pub loss: f64,
    /// Share of the batch that was classified right, over all noise levels.
    pub accuracy: f64,
}

/// A classifier in training on a folder of latents: cross-entropy at uniformly drawn timesteps.
///
/// Every random number is a function of seed and step, and [`save`](Self::save) keeps everything else: a run that was stopped and
/// continued gives the bits of one that was not, on a CPU.
pub struct Training {
    classifier: Classifier,
    /// (name, variable), in order of names: the optimizer's order.
    parameters: Vec<(String, Tensor)>,
    optimizer: AdamW,
    batches: LatentBatches,
    /// Where the batches of the next step begin: a step that fails has read its own already.
    position: Position,
    noising: Noising,
    options: TrainingOptions,
    identity: Identity,
}

/// What a run is of, to tell it from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) spec: ClassifierSpec,
    pub(crate) options: TrainingOptions,
    pub(crate) vae_sha256: String,
    pub(crate) source: String,
    pub(crate) class_names: Vec<String>,
}

impl Training {
    /// From the beginning. Mirror images take part where the folder has them.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::Config`]; [`Error::Data`] where there are too few records for a batch.
    pub fn new(
        folder: LatentFolder,
        spec: &ClassifierSpec,
        options: TrainingOptions,
        device: Device,
    ) -> Result<Self, Error> {
        Self::begin(folder, spec, options, device, None)
    }

    /// Continues from what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::OtherRun`] where that was begun otherwise, [`Error::Weights`] where it cannot be read.
    pub fn resume(
        folder: LatentFolder,
        spec: &ClassifierSpec,
        options: TrainingOptions,
        device: Device,
        state: &Path,
    ) -> Result<Self, Error> {
        Self::begin(folder, spec, options, device, Some(state))
    }

    fn begin(
        folder: LatentFolder,
        spec: &ClassifierSpec,
        options: TrainingOptions,
        device: Device,
        state: Option<&Path>,
    ) -> Result<Self, Error> {
        options.check()?;
        let settings = &folder.manifest().settings;
        let identity = Identity {
            spec: spec.clone(),
            options: options.clone(),
            vae_sha256: settings.vae.sha256.clone(),
            source: settings.source.fingerprint.clone(),
            class_names: folder.manifest().class_names.clone(),
        };
        let noising = Noising::new(LatentScale::of(&settings.vae.config), options.seed, device)?;
        let classifier = Classifier::new(spec, options.seed, device)?;
        let named: BTreeMap<String, Tensor> = classifier.store().variables().into_iter().collect();
        let parameters: Vec<(String, Tensor)> =
            named.into_iter().filter(|(_, variable)| variable.requires_grad()).collect();
        let mut tensors = shared(&parameters);
        let constants = AdamWOptions { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: options.weight_decay };
        let mut optimizer = AdamW::new(&tensors, constants, AdamWKernel::Fused)?;
        let found = match state {
            Some(path) => Some(state::read(path, &identity, &parameters, device)?),
            None => None,
        };
        if let Some(found) = &found {
            let _no_grad = tch::no_grad_guard();
            for (variable, value) in tensors.iter_mut().zip(&found.parameters) {
                variable.f_copy_(value)?;
            }
            optimizer.restore(found.step, &found.exp_avg, &found.exp_avg_sq)?;
        }
        let batches = batches(folder, &options, found.map(|found| found.position))?;
        let position = batches.position();
        Ok(Self { classifier, parameters, optimizer, batches, position, noising, options, identity })
    }

    /// Writes all that [`resume`](Self::resume) needs. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Weights`] where it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        state::write(path, &self.identity, &self.parameters, &self.optimizer, self.position)
    }

    /// Whether all steps have been taken.
    pub fn is_done(&self) -> bool {
        self.steps_taken() >= self.options.steps
    }

    /// Steps taken so far.
    pub fn steps_taken(&self) -> u64 {
        self.optimizer.steps_taken()
    }

    /// Takes one step.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::NonFiniteGradient`] when it diverges; else when latents cannot be read or libtorch fails. All
    /// but [`Error::Ops`] leave what [`save`](Self::save) writes as it was before the step.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let step = self.steps_taken();
        let batch = self.batches.next_batch()?;
        let timesteps = draw_timesteps(self.options.seed, step, batch.records.len(), self.noising.timesteps());
        let first = step * self.options.batch_size as u64;
        let Noised { x, t, labels } = self.noising.apply(&batch, &timesteps, first)?;
        let logits = self.classifier.forward(&x, &t); // (N, classes)
        let log_probs = logits.f_log_softmax(1, tch::Kind::Float)?; // (N, classes)
        let loss = log_probs.f_gather(1, &labels.unsqueeze(1), false)?.mean(tch::Kind::Float).neg();
        let (value, accuracy) =
            (loss.f_double_value(&[])?, logits.argmax(1, false).eq_tensor(&labels).mean(tch::Kind::Double));
        if !value.is_finite() {
            return Err(Error::NonFinite { step, loss: value });
        }
        let mut tensors = shared(&self.parameters);
        let gradients = Tensor::f_run_backward(&[loss], &tensors, false, false)?;
        check_finite(step, &gradients)?;
        self.optimizer.step(&mut tensors, &gradients, self.options.rate(step))?;
        self.position = self.batches.position();
        Ok(StepReport { step: step + 1, loss: value, accuracy: accuracy.f_double_value(&[])? })
    }

    /// The classifier as it is now.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// What its file is to say.
    pub fn about(&self) -> About {
        let Identity { spec, vae_sha256, class_names, .. } = self.identity.clone();
        About::new(spec, vae_sha256, class_names, self.steps_taken())
    }
}

/// Refuses gradients that hold NaN or infinity, before the optimizer makes weights of them.
fn check_finite(step: u64, gradients: &[Tensor]) -> Result<(), Error> {
    let largest: Vec<Tensor> =
        gradients.iter().map(|one| one.f_abs()?.f_amax([0_i64; 0], false)).collect::<Result<_, _>>()?;
    if f64::try_from(Tensor::f_stack(&largest, 0)?.f_max()?)?.is_finite() {
        return Ok(());
    }
    Err(Error::NonFiniteGradient { step })
}

/// The variables themselves, not copies.
fn shared(parameters: &[(String, Tensor)]) -> Vec<Tensor> {
    parameters.iter().map(|(_, variable)| variable.shallow_clone()).collect()
}

/// Shuffled draws of the folder's posteriors, mirrored at random where it has mirror images.
fn batches(
    folder: LatentFolder,
    options: &TrainingOptions,
    position: Option<Position>,
) -> Result<LatentBatches, Error> {
    let flip = match folder.layout().flips() {
        Flips::Both => FlipChoice::Random,
        Flips::None => FlipChoice::Never,
    };
    let (batch_size, seed, draw) = (options.batch_size, options.seed, PosteriorDraw::Sample);
    let options = BatchOptions { batch_size, seed, share: Share::ALL, flip, draw };
    Ok(match position {
        Some(position) => LatentBatches::at(folder, options, position)?,
        None => LatentBatches::new(folder, options)?,
    })
}

/// Uniform over the schedule; one stratum a sample, so that every batch sees all noise levels.
fn draw_timesteps(seed: u64, step: u64, samples: usize, timesteps: usize) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&step.to_le_bytes());
    key[16..].copy_from_slice(b"classifier steps");
    let mut rng = ChaCha8Rng::from_seed(key);
    let stratum =
        |(i, u): (usize, f64)| (((i as f64 + u) / samples as f64 * timesteps as f64) as usize).min(timesteps - 1);
    (0..samples).map(|i| stratum((i, unit(&mut rng)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(gradients: &[&[f32]], are_finite: bool) {
        let gradients: Vec<Tensor> = gradients.iter().map(|values| Tensor::from_slice(values)).collect();
        match (check_finite(7, &gradients), are_finite) {
            (Ok(()), true) | (Err(Error::NonFiniteGradient { step: 7 }), false) => {}
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn one_number_that_is_none_refuses_the_step() {
        check(&[&[1.0, -2.0], &[0.0]], true);
        check(&[&[f32::MAX, f32::MIN], &[f32::MIN_POSITIVE]], true);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            check(&[&[bad]], false);
            check(&[&[1.0, bad, 3.0], &[0.0]], false);
            check(&[&[0.0], &[1.0, 2.0, bad]], false);
        }
    }
}
