//! A training run's folder, or one of its checkpoints, in the place of a checkpoint's file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, bail, ensure};
use dit_train::{StoredWeights, TrainError, watch::Session};
use dit_weights::Checkpoint;

use crate::speak::say;

/// The weights as trained, in a checkpoint.
const RAW: &str = "model.safetensors";
/// What a checkpoint says of itself.
const STATE: &str = "state.json";

/// What is sampled from, or converted, when a run is named.
#[derive(Debug, PartialEq)]
pub struct RunWeights {
    /// The first average of the newest checkpoint, or of the one named.
    average: PathBuf,
    /// The weights as trained.
    pub raw: PathBuf,
}

/// The weights of `path`, if it is a run's folder or a checkpoint's within one. The newest checkpoint of a run is taken as it is: where
/// it is damaged, an older one is for its user to choose.
///
/// # Errors
/// A run has no checkpoint yet, or one that is not what was written.
pub fn weights_of(path: &Path) -> Result<Option<RunWeights>> {
    let is_run = path.join("sessions.jsonl").is_file();
    let checkpoint = match newest(&path.join("checkpoints")) {
        Some(newest) => newest,
        None if is_checkpoint(path) => path.to_owned(),
        None if is_run => bail!(
            "{} is a training run that has no checkpoint yet\n  help: wait for its first one, or train with a smaller \
             train.checkpoint_every",
            path.display()
        ),
        None => return Ok(None),
    };
    let average = read(&checkpoint)?.first_average().unwrap_or_else(|| RAW.to_owned());
    Ok(Some(RunWeights { average: checkpoint.join(average), raw: checkpoint.join(RAW) }))
}

impl RunWeights {
    /// The average's file.
    ///
    /// # Errors
    /// It is not there.
    pub fn average(self) -> Result<PathBuf> {
        ensure!(
            self.average.is_file(),
            "{} is missing from the run's checkpoint\n  \
             help: name another checkpoint of the run, or {}, the weights as trained",
            self.average.display(),
            self.raw.display()
        );
        Ok(self.average)
    }
}

/// The codec of the latents that the weights in `file`, or the run in `file`, were trained on, as its user named it.
pub fn codec_of(file: &Path) -> Option<String> {
    // The run itself, or RUN/checkpoints/step-…, or a file in that.
    let run = file.ancestors().take(4).find(|folder| folder.join("sessions.jsonl").is_file())?;
    Session::last(run).map(|session| session.data.codec)
}

/// What the run wrote down of a file of weights, if it is one of a run's checkpoint: all that, and the file's name.
fn stored(file: &Path) -> Result<Option<(StoredWeights, String)>> {
    let Ok(file) = file.canonicalize() else { return Ok(None) };
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    let is_of_run = (name == RAW || name.starts_with("ema-")) && folder.join(STATE).is_file();
    Ok(if is_of_run { Some((read(folder)?, name.to_owned())) } else { None })
}

/// The SHA-256 that the run recorded for such a file.
fn recorded(file: &Path) -> Result<Option<String>> {
    Ok(stored(file)?.and_then(|(stored, name)| Some(stored.sha256_of(&name)?.to_owned())))
}

/// Warns of a run's average that is not one of trained weights yet.
pub fn warn_of_lag(checkpoint: &Checkpoint) -> Result<()> {
    let [file] = checkpoint.files() else { return Ok(()) };
    if let Some(lag) = stored(file)?.and_then(|(stored, name)| stored.lag_of(&name)) {
        say(format_args!("warning: {lag}\n  help: sample from {}", file.with_file_name(RAW).display()));
    }
    Ok(())
}

/// Begins to hash a checkpoint that [`check`] is going to ask about.
///
/// # Errors
/// What the run says of it has changed since.
pub fn start_check(checkpoint: &Checkpoint) -> Result<()> {
    if let [file] = checkpoint.files()
        && recorded(file)?.is_some()
    {
        checkpoint.digest().start();
    }
    Ok(())
}

/// Whether a checkpoint, if it is of a training run's, is what the run wrote. Waits for its hash.
pub fn check(checkpoint: &Checkpoint) -> Result<()> {
    match checkpoint.files() {
        [file] => check_file(file, || Ok(checkpoint.sha256()?.to_owned())).map(drop),
        _ => Ok(()),
    }
}

/// Whether a file of weights, if it is of a training run's checkpoint, is what the run wrote: if it has the SHA-256 that it had then,
/// which is returned.
pub fn check_file(file: &Path, sha256: impl FnOnce() -> Result<String>) -> Result<Option<String>> {
    let Some(recorded) = recorded(file)? else { return Ok(None) };
    let found = sha256()?;
    ensure!(
        found == recorded,
        "{} is not what the training run wrote: its SHA-256 is {found}, the state.json beside it has {recorded}\n  \
         help: take another checkpoint of the run, or copy this one anew",
        file.display()
    );
    Ok(Some(found))
}

/// What the checkpoint in `folder` says.
fn read(folder: &Path) -> Result<StoredWeights> {
    StoredWeights::read(folder).map_err(|error| match error {
        // What helps a run that is to be continued does not help here.
        TrainError::Damaged { path, problem } => {
            anyhow!(
                "the checkpoint {} is damaged: {problem}\n  help: name another checkpoint of the run",
                path.display()
            )
        }
        other => other.into(),
    })
}

fn is_checkpoint(path: &Path) -> bool {
    path.join(STATE).is_file() && path.join(RAW).is_file()
}

fn newest(checkpoints: &Path) -> Option<PathBuf> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let found = fs::read_dir(checkpoints).ok()?.flatten().map(|entry| entry.path());
    let found = found.filter_map(|path| Some((step(&path)?, path)));
    found.max().map(|(_, path)| path)
}
