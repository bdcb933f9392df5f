//! One optimizer step, and the state that it changes. Knows no files.

use std::ops::Range;

use dit_diffusion::{LossTerms, NoisedBatch, StepIndex};
use dit_model::{Dit, DitConfig, Initialization};
use dit_ops::{AdamW, AdamWKernel, AdamWOptions, Tf32Scope, allow_tf32, keep_freed_memory};
use dit_recipe::{ClipNorm, Precision, Recipe};
use dit_torch::{bring, lists};
use dit_vae::{LatentScale, RawLatents};
use tch::{Device, Kind, Tensor};

use crate::{
    NonFiniteReport, SampleLoss, Stage, TrainError,
    backward::{Activations, Input, backward},
    ema::Ema,
    feed::{RawBatch, StepData},
    guardian::{self, Found},
    learning_rate::learning_rate,
    network::Network,
    objective::TrainingObjective,
    timesteps::{Drawn, TimestepSampler},
};

/// Everything that a step changes, and what it needs for that.
#[derive(Debug)]
pub(crate) struct Trainer {
    pub(crate) network: Network,
    pub(crate) optimizer: AdamW,
    pub(crate) emas: Vec<Ema>,
    pub(crate) sampler: TimestepSampler,
    pub(crate) objective: TrainingObjective,
    /// Whether all of it is of the same step.
    whole: bool,
    recipe: Recipe,
    scale: LatentScale,
    device: Device,
}

/// How a step went.
#[derive(Debug)]
pub(crate) enum Stepped {
    Taken {
        samples: Vec<SampleLoss>,
        lr: f64,
        grad_norm: f64,
    },
    /// Nothing has changed.
    NonFinite(NonFiniteReport),
}

/// A part of a batch on the device.
struct Part {
    noised: NoisedBatch,
    x0: Tensor,
    labels: Tensor,
    /// Of the squared errors, (N,); none where all are 1.
    mse_weights: Option<Tensor>,
    /// Of the losses, (N,), for having been drawn more or less often than others; none where all are 1.
    drawn_weights: Option<Tensor>,
    drawn: Vec<Drawn>,
    records: Vec<u64>,
}

impl Part {
    fn input(&self) -> Input<'_> {
        Input { x: self.noised.x_t(), t: self.noised.timesteps(), labels: &self.labels }
    }
}

impl Trainer {
    /// New weights, averages that are their copies, and an optimizer that has taken no step.
    pub(crate) fn new(
        recipe: &Recipe,
        config: &DitConfig,
        scale: LatentScale,
        device: Device,
        initialization: Initialization,
    ) -> Result<Self, TrainError> {
        if device.is_cuda() {
            allow_tf32(false)?;
        }
        if device == Device::Cpu {
            // Every step takes as much again for its activations.
            keep_freed_memory();
        }
        let network = Network::new(config, recipe.train.precision, device, initialization)?;
        let [beta1, beta2] = recipe.optim.betas;
        let options = AdamWOptions { beta1, beta2, eps: recipe.optim.eps, weight_decay: recipe.optim.weight_decay };
        let optimizer = AdamW::new(network.masters(), options, AdamWKernel::Fused)?;
        let emas = recipe.ema.decays.iter().map(|&decay| Ema::new(decay, network.masters())).collect();
        let objective = TrainingObjective::new(&recipe.diffusion, device)?;
        let sampler = TimestepSampler::new(recipe.diffusion.timesteps, objective.timesteps());
        Ok(Self { network, optimizer, emas, sampler, objective, whole: true, recipe: recipe.clone(), scale, device })
    }

    /// Takes the step after `taken` others.
    pub(crate) fn step(&mut self, data: &StepData, taken: u64) -> Result<Stepped, TrainError> {
        let _tf32 = self.tf32()?;
        let drawn = self.sampler.draw(&data.lots);
        self.forget_gradients()?;
        let parts = self.recipe.train.accumulate;
        let size = drawn.len() / parts;
        let mut computed = Vec::with_capacity(parts);
        let mut gathered = None;
        let each = (0..parts).map(|index| self.part(&data.batch, &drawn, index * size..(index + 1) * size));
        // All are brought to the device before the first pass.
        for part in each.collect::<Result<Vec<Part>, _>>()? {
            let losses = self.backward_of(&part, parts)?;
            computed.push((part, losses));
            if self.gathers(parts) {
                self.gather(&mut gathered)?;
            }
        }
        let mut gradients = gathered.map_or_else(|| self.gradients(), Ok)?;
        let grad_norm = lists::norm(&gradients)?;
        // A GPU has been given all of this to do; only now it is waited for.
        let mut samples = Vec::with_capacity(drawn.len());
        for (part, losses) in &computed {
            let losses = losses.read(&part.drawn)?;
            if losses.iter().any(|sample| !sample.total.is_finite()) {
                return Ok(Stepped::NonFinite(self.report(taken, self.locate(part)?)));
            }
            samples.extend(losses);
        }
        let grad_norm = f64::try_from(grad_norm)?;
        if !grad_norm.is_finite() {
            let found = guardian::in_gradients(self.network.names(), &gradients)?;
            let overflow = || (Stage::Gradient, "all gradients".to_owned(), "their norm".to_owned());
            return Ok(Stepped::NonFinite(self.report(taken, found.unwrap_or_else(overflow))));
        }
        if let ClipNorm::At(most) = self.recipe.optim.clip_grad_norm {
            clip(&mut gradients, grad_norm, most)?;
        }
        let lr = learning_rate(&self.recipe.optim, taken, self.recipe.train.steps);
        self.changing(|this| {
            this.optimizer.step(this.network.masters_mut(), &gradients, lr)?;
            for ema in &mut this.emas {
                ema.update(this.network.masters())?;
            }
            this.network.publish()?;
            this.sampler.learn(&samples);
            Ok(())
        })?;
        Ok(Stepped::Taken { samples, lr, grad_norm })
    }

    /// Has the network compute as the recipe says while the scope lives. What else this process computes stays fp32: the codec's
    /// pictures, and the features that FID is of.
    fn tf32(&self) -> Result<Option<Tf32Scope>, TrainError> {
        let asked = self.device.is_cuda() && self.recipe.train.precision == Precision::Tf32;
        Ok(asked.then(Tf32Scope::new).transpose()?)
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Does what changes the state as a whole: an error or a panic half-way leaves one that is not [whole](Self::is_whole).
    pub(crate) fn changing(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        self.whole = false;
        change(self)?;
        self.whole = true;
        Ok(())
    }

    /// Whether weights, averages and moments are of the same step: not after an error in the middle of a change.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The network with the first average's weights, for inference.
    pub(crate) fn first_average(&self) -> Result<Dit, TrainError> {
        let weights = self.emas.first().map_or_else(|| self.network.masters(), Ema::weights);
        self.network.with_weights(weights)
    }

    /// The loss of each sample by another network of the same kind, as many at once as a step computes; nothing is learned.
    pub(crate) fn losses(&self, dit: &Dit, batch: &RawBatch, drawn: &[Drawn]) -> Result<Vec<SampleLoss>, TrainError> {
        let _no_grad = tch::no_grad_guard();
        let _tf32 = self.tf32()?;
        let at_once = (self.recipe.train.batch_size / self.recipe.train.accumulate).max(1);
        let mut losses = Vec::with_capacity(drawn.len());
        for from in (0..drawn.len()).step_by(at_once) {
            let part = self.part(batch, drawn, from..drawn.len().min(from + at_once))?;
            let Input { x, t, labels } = part.input();
            let output = dit.forward(x, t, labels);
            let terms = self.objective.terms(&part.noised, part.mse_weights.as_ref(), &output)?;
            losses.extend(DeviceLosses::of(&terms)?.read(&part.drawn)?);
        }
        Ok(losses)
    }

    /// These samples of the batch, noised.
    fn part(&self, data: &RawBatch, drawn: &[Drawn], samples: Range<usize>) -> Result<Part, TrainError> {
        let [_, c, h, w] = data.shape;
        let Range { start: from, end: to } = samples;
        let values = |all: &[f32]| {
            let shape = [(to - from) as i64, c as i64, h as i64, w as i64];
            let per_sample = c * h * w;
            bring(&Tensor::from_slice(&all[from * per_sample..to * per_sample]).view(shape), self.device)
        };
        let x0 = self.scale.apply(&RawLatents::new(values(&data.latents)?)).into_tensor();
        let drawn = drawn[from..to].to_vec();
        let timesteps: Vec<usize> = drawn.iter().map(|drawn| drawn.timestep).collect();
        let indices: Vec<StepIndex> = timesteps.iter().copied().map(StepIndex).collect();
        let noised = NoisedBatch::new(self.objective.tables(), &x0, &values(&data.noise)?, &indices)?;
        let here = |tensor: Option<Tensor>| tensor.map(|tensor| bring(&tensor, self.device)).transpose();
        let drawn_weights = match self.sampler {
            TimestepSampler::LossSecondMoment(_) => {
                let weights: Vec<f32> = drawn.iter().map(|drawn| drawn.weight as f32).collect();
                Some(Tensor::from_slice(&weights))
            }
            TimestepSampler::Uniform { .. } | TimestepSampler::LogitNormal { .. } => None,
        };
        Ok(Part {
            noised,
            x0,
            labels: bring(&Tensor::from_slice(&data.labels[from..to]), self.device)?,
            mse_weights: here(self.objective.mse_weights(&timesteps))?,
            drawn_weights: here(drawn_weights)?,
            drawn,
            records: data.records[from..to].to_vec(),
        })
    }

    /// Adds the part's share of the gradient, and gives the loss of each sample. A GPU is not waited for.
    fn backward_of(&self, part: &Part, parts: usize) -> Result<DeviceLosses, TrainError> {
        let activations = match self.recipe.train.checkpoint_activations {
            true => Activations::Recomputed,
            false => Activations::Kept,
        };
        let mut kept = None;
        let mut loss = |output: &Tensor| {
            let terms = self.objective.terms(&part.noised, part.mse_weights.as_ref(), output)?;
            let total = match &part.drawn_weights {
                Some(weights) => &terms.total * weights,
                None => terms.total.shallow_clone(),
            };
            kept = Some(DeviceLosses::of(&terms)?);
            let mean = total.f_mean(Kind::Float)?;
            Ok(if parts == 1 { mean } else { mean / parts as f64 })
        };
        backward(self.network.dit(), part.input(), activations, &mut loss)?;
        Ok(kept.expect("a backward pass begins with the loss"))
    }

    fn forget_gradients(&self) -> Result<(), TrainError> {
        Ok(self.network.computing().iter().try_for_each(dit_torch::forget_gradient)?)
    }

    /// Whether gradients of parts must be added in fp32, which libtorch does by itself where the network computes in it.
    fn gathers(&self, parts: usize) -> bool {
        parts > 1 && self.recipe.train.precision == Precision::Bf16
    }

    fn gather(&self, gathered: &mut Option<Vec<Tensor>>) -> Result<(), TrainError> {
        let gradients = self.gradients()?;
        match gathered {
            None => *gathered = Some(gradients),
            Some(sums) => lists::add(sums, &gradients)?,
        }
        self.forget_gradients()?;
        Ok(())
    }

    /// fp32, in the parameters' order. A parameter that no sample used has none, which counts as zero.
    fn gradients(&self) -> Result<Vec<Tensor>, TrainError> {
        let gradient = |parameter: &Tensor| {
            let gradient = parameter.grad();
            if gradient.defined() { Ok(gradient) } else { parameter.detach().f_zeros_like() }
        };
        let gradients = self.network.computing().iter().map(gradient).collect::<Result<Vec<Tensor>, _>>()?;
        if gradients.iter().all(|gradient| gradient.kind() == Kind::Float) {
            return Ok(gradients);
        }
        let empty = |like: &Tensor| Tensor::f_empty(like.size(), (Kind::Float, like.device()));
        let mut widened = gradients.iter().map(empty).collect::<Result<Vec<Tensor>, _>>()?;
        lists::copy(&mut widened, &gradients)?;
        Ok(widened)
    }

    /// Where a part's loss ceased to be finite.
    fn locate(&self, part: &Part) -> Result<Found, TrainError> {
        if let Some(found) = guardian::in_data(&part.x0, &part.records)? {
            return Ok(found);
        }
        if let Some(found) = guardian::in_weights(self.network.names(), self.network.masters())? {
            return Ok(found);
        }
        let found = guardian::in_forward(self.network.dit(), part.input())?;
        Ok(found.unwrap_or_else(|| (Stage::Loss, "loss".to_owned(), "loss".to_owned())))
    }

    fn report(&self, taken: u64, (stage, place, tensor): Found) -> NonFiniteReport {
        NonFiniteReport { step: taken + 1, stage, place, tensor }
    }
}

/// The losses of samples, where they were computed.
struct DeviceLosses {
    /// (1 to 3, N): the total, and what there is of its terms.
    rows: Tensor,
    has_mse: bool,
    has_vb: bool,
}

impl DeviceLosses {
    fn of(terms: &LossTerms) -> Result<Self, TrainError> {
        let (mse, vb) = (terms.mse.as_ref(), terms.vlb.as_ref());
        let there: Vec<&Tensor> = [Some(&terms.total), mse, vb].into_iter().flatten().collect();
        let rows = Tensor::f_stack(&there, 0)?.detach();
        Ok(Self { rows, has_mse: mse.is_some(), has_vb: vb.is_some() })
    }

    /// As numbers. Waits for a GPU.
    fn read(&self, drawn: &[Drawn]) -> Result<Vec<SampleLoss>, TrainError> {
        let rows = self.rows.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let mut rows = Vec::<Vec<f64>>::try_from(rows)?.into_iter();
        let total = rows.next().unwrap_or_default();
        let mse = self.has_mse.then(|| rows.next()).flatten();
        let vb = self.has_vb.then(|| rows.next()).flatten();
        let at =
            |values: &Option<Vec<f64>>, index: usize| values.as_ref().and_then(|values| values.get(index).copied());
        let sample = |(index, (drawn, total)): (usize, (&Drawn, f64))| SampleLoss {
            timestep: drawn.timestep as u32,
            weight: drawn.weight,
            total,
            mse: at(&mse, index),
            vb: at(&vb, index),
        };
        Ok(drawn.iter().zip(total).enumerate().map(sample).collect())
    }
}

/// Scales gradients of norm `norm` down to `most`; as PyTorch, with 1e-6 in the divisor.
fn clip(gradients: &mut [Tensor], norm: f64, most: f64) -> Result<(), TrainError> {
    let factor = most / (norm + 1e-6);
    if factor < 1.0 {
        lists::scale(gradients, factor)?;
    }
    Ok(())
}
