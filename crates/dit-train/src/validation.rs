//! The loss on records that are not trained on: the same records, noise and timesteps every time.

use dit_data::shard::{BatchOptions, FlipChoice, LatentBatch, LatentBatches, LatentFolder, Share};
use dit_model::Dit;
use dit_recipe::Recipe;

use crate::{
    BucketLosses, TrainError, ValidationReport,
    feed::{Labels, RawBatch},
    random::{self, Moment, Purpose},
    timesteps::Drawn,
    trainer::Trainer,
};

/// (√5 − 1)/2: the fractions of its multiples fill [0, 1) evenly, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Chooses the records and their noise: not the run's seed, so that the losses of runs with different seeds compare.
const SEED: u64 = 0;

/// Held-out batches with their noise and timesteps, in memory.
#[derive(Debug)]
pub(crate) struct Validation {
    batches: Vec<(RawBatch, Vec<Drawn>)>,
}

impl Validation {
    /// The first `validation.records` of `folder` in a fixed random order, a whole number of batches of them, for a process of
    /// `timesteps` steps: the same records and noise for every run with the same data and batch size, in however many parts it computes a batch. No label is dropped: what the network says of the null class is not what is measured.
    pub(crate) fn new(
        folder: LatentFolder,
        recipe: &Recipe,
        labels: Labels,
        timesteps: usize,
    ) -> Result<Self, TrainError> {
        let records = usize::try_from(folder.len()).unwrap_or(usize::MAX).min(recipe.validation.records);
        let batch_size = recipe.train.batch_size.clamp(1, records.max(1));
        let draw = crate::data::posterior_draw(recipe);
        let options = BatchOptions { batch_size, seed: SEED, share: Share::ALL, flip: FlipChoice::Never, draw };
        let mut source = LatentBatches::new(folder, options)?;
        let labels = match labels {
            Labels::Ignored => Labels::Ignored,
            Labels::Kept | Labels::Dropped { .. } => Labels::Kept,
        };
        let mut batches = Vec::new();
        for index in 0..records / batch_size {
            let LatentBatch { latents, shape, labels: classes, records } = source.next_batch()?;
            let moment = Moment { seed: SEED, step: index as u64, rollbacks: 0 };
            let noise = random::normals(&random::generator(moment, Purpose::ValidationNoise), latents.len());
            let first = index * batch_size;
            let drawn = (first..first + batch_size).map(|sample| even_timestep(sample, timesteps)).collect();
            let labels = labels.apply(classes, moment);
            batches.push((RawBatch { latents, noise, shape, labels, records }, drawn));
        }
        Ok(Self { batches })
    }

    /// Both the trained weights and their first average; nothing where it `is_to_stop`, which is asked before every batch.
    pub(crate) fn measure(
        &self,
        trainer: &Trainer,
        step: u64,
        is_to_stop: &dyn Fn() -> bool,
    ) -> Result<Option<ValidationReport>, TrainError> {
        let Some(raw) = self.losses(trainer, trainer.network.dit(), is_to_stop)? else { return Ok(None) };
        let Some(ema) = self.losses(trainer, &trainer.first_average()?, is_to_stop)? else { return Ok(None) };
        Ok(Some(ValidationReport { step, images: raw.samples(), raw, ema }))
    }

    fn losses(
        &self,
        trainer: &Trainer,
        dit: &Dit,
        is_to_stop: &dyn Fn() -> bool,
    ) -> Result<Option<BucketLosses>, TrainError> {
        let mut losses = BucketLosses::new(trainer.objective.timesteps());
        for (batch, drawn) in &self.batches {
            if is_to_stop() {
                return Ok(None);
            }
            trainer.losses(dit, batch, drawn)?.iter().for_each(|sample| losses.add(sample));
        }
        Ok(Some(losses))
    }
}

/// The timestep of the `sample`-th held-out record.
fn even_timestep(sample: usize, timesteps: usize) -> Drawn {
    let place = ((sample as f64 + 0.5) * GOLDEN).fract();
    Drawn { timestep: ((place * timesteps as f64) as usize).min(timesteps - 1), weight: 1.0 }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use dit_config::BlockDesign;
    use dit_recipe::Sections;

    use super::*;
    use crate::tests::support::{batch, config, trainer, visible_weight};

    #[test]
    fn a_stop_is_seen_before_every_batch_and_leaves_no_half_measure() {
        let config = config(BlockDesign::AdaLnZero, 1);
        let trainer = trainer(&config, Sections::default(), visible_weight);
        let timesteps = trainer.objective.timesteps();
        let drawn: Vec<Drawn> = (0..2).map(|sample| even_timestep(sample, timesteps)).collect();
        let batches = (0..3).map(|index| (batch(&config, 2, index).batch, drawn.clone())).collect();
        let validation = Validation { batches };
        // Three batches through the trained weights, three through their average.
        let measured_after = |asked: usize| {
            let times = Cell::new(0);
            let is_to_stop = || times.replace(times.get() + 1) == asked;
            let report = validation.measure(&trainer, 6, &is_to_stop).unwrap();
            (report, times.get())
        };
        for asked in 0..6 {
            let (report, times) = measured_after(asked);
            assert!(report.is_none() && times == asked + 1, "asked {times} times, to stop after {asked}");
        }
        let (report, times) = measured_after(6);
        let report = report.unwrap();
        assert_eq!((times, report.step, report.images), (6, 6, 6));
        assert!(report.raw.mean().is_some_and(|losses| losses.total > 0.0));
        assert_eq!(report.raw, report.ema, "an average of one step's weights");
    }

    #[test]
    fn timesteps_are_spread_evenly() {
        for (samples, most) in [(100, 12), (1000, 102), (2048, 207)] {
            let mut counts = [0; 10];
            (0..samples).for_each(|sample| counts[even_timestep(sample, 1000).timestep / 100] += 1);
            assert!(counts.iter().all(|&count| count <= most), "{counts:?}");
        }
    }
}
