use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use dit_files::{AtomicFolder, WriteError};
use dit_weights::{Error, Metadata, TchSource, WeightsKind, sha256_of, write_safetensors};
use tch::Tensor;

use super::{HISTORY_COUNTS, HISTORY_LOSSES, MEAN, MODEL, OPTIMIZER, SQUARE, State, ema_file};
use crate::{Measurement, TrainError, timesteps::TimestepSampler, trainer::Trainer};

/// Writes a checkpoint to `path`, where there is none yet. `metadata` is that of the weights' files, but for step and kind.
pub(crate) fn save(trainer: &Trainer, mut state: State, metadata: &Metadata, path: &Path) -> Result<(), TrainError> {
    // An empty folder may be replaced. What is in the way is told before gigabytes are written.
    if fs::symlink_metadata(path).is_ok() && !fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) {
        return Err(TrainError::Taken { path: path.to_owned() });
    }
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
    folder.commit().map_err(|source| not_placed(source, path))
}

/// Notes what is still owed after the step of the checkpoint at `path`, where it said more.
pub(crate) fn settle(path: &Path, owed: &[Measurement]) -> Result<(), TrainError> {
    let mut state = State::read(path)?;
    state.owed = owed.to_vec();
    state.write(path)
}

/// Removes what a process that was killed in [`settle`] left in the checkpoint at `path`.
pub(crate) fn clear(path: &Path) -> Result<(), TrainError> {
    let failed = |source| TrainError::Io { action: "clear", path: path.to_owned(), source };
    dit_files::remove_unfinished(path).map(drop).map_err(failed)
}

/// Why a finished checkpoint is not at its place.
fn not_placed(source: io::Error, path: &Path) -> TrainError {
    match source.kind() {
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => TrainError::Taken { path: path.to_owned() },
        _ => WriteError::new(path, source).into(),
    }
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
