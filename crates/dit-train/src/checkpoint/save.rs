use std::{collections::BTreeMap, path::Path};

use dit_files::{AtomicFolder, WriteError};
use dit_weights::{Error, Metadata, TchSource, WeightsKind, sha256_of, write_safetensors};
use tch::Tensor;

use super::{HISTORY_COUNTS, HISTORY_LOSSES, MEAN, MODEL, OPTIMIZER, SQUARE, State, ema_file};
use crate::{TrainError, timesteps::TimestepSampler, trainer::Trainer};

/// Writes a checkpoint to `path`, where there is none yet. `metadata` is that of the weights' files, but for step and kind.
pub(crate) fn save(trainer: &Trainer, mut state: State, metadata: &Metadata, path: &Path) -> Result<(), TrainError> {
    let folder = AtomicFolder::create(path)?;
    let step = state.step;
    let describe = |kind| Metadata { weights: Some(kind), step: Some(step), ..metadata.clone() }.to_map();
    let mut write = |name: String, tensors: Vec<(String, Tensor)>, metadata: &BTreeMap<String, String>| {
        let file = folder.path().join(&name);
        let written = TchSource::new(tensors).and_then(|source| write_safetensors(&file, &source, metadata));
        written.map_err(|error| in_place(error, folder.path(), path))?;
        state.files.insert(name, sha256_of(&[&file])?);
        Ok::<(), TrainError>(())
    };
    let network = &trainer.network;
    write(MODEL.to_owned(), network.state(network.masters()), &describe(WeightsKind::Raw))?;
    for ema in &trainer.emas {
        write(ema_file(ema.decay()), network.state(ema.weights()), &describe(WeightsKind::Ema))?;
    }
    write(OPTIMIZER.to_owned(), optimizer_tensors(trainer), &BTreeMap::new())?;
    state.write(folder.path()).map_err(|error| match error {
        TrainError::Write(error) => TrainError::Write(error.moved(folder.path(), path)),
        other => other,
    })?;
    Ok(folder.commit().map_err(|source| WriteError::new(path, source))?)
}

/// Speaks of the place that the user knows, not of the temporary one.
fn in_place(error: Error, from: &Path, to: &Path) -> TrainError {
    match error {
        Error::Write(error) => TrainError::Write(error.moved(from, to)),
        other => other.into(),
    }
}

fn optimizer_tensors(trainer: &Trainer) -> Vec<(String, Tensor)> {
    let (means, squares) = trainer.optimizer.moments();
    let named = |prefix: &'static str, tensors: &[Tensor]| -> Vec<(String, Tensor)> {
        let names = trainer.network.names().iter().map(|name| format!("{prefix}{name}"));
        names.zip(tensors.iter().map(Tensor::shallow_clone)).collect()
    };
    let mut all = named(MEAN, means);
    all.extend(named(SQUARE, squares));
    if let TimestepSampler::LossSecondMoment(history) = &trainer.sampler {
        let (losses, counts) = history.parts();
        all.push((HISTORY_LOSSES.to_owned(), Tensor::from_slice(losses)));
        all.push((HISTORY_COUNTS.to_owned(), Tensor::from_slice(counts)));
    }
    all
}
