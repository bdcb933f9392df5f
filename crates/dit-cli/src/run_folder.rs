//! A training run's folder, or one of its checkpoints, in the place of a checkpoint's file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use dit_recipe::Recipe;
use dit_train::watch::Session;
use dit_weights::Checkpoint;

/// What is sampled from, or converted, when a run is named.
#[derive(Debug, PartialEq)]
pub struct RunWeights {
    /// The first average of the newest checkpoint, or of the one named.
    pub average: PathBuf,
    /// The weights as trained.
    pub raw: PathBuf,
}

/// The weights of `path`, if it is a run's folder or a checkpoint's within one. The newest checkpoint of a run is taken as it is: where
/// it is damaged, an older one is for its user to choose.
///
/// # Errors
/// A run has no checkpoint yet, or one that does not say which averages it has.
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
    let average = average_of(&checkpoint).with_context(|| {
        format!(
            "the checkpoint {} is damaged: its state.json is missing or cannot be read\n  help: name another checkpoint of the run",
            checkpoint.display()
        )
    })?;
    Ok(Some(RunWeights { average: checkpoint.join(average), raw: checkpoint.join("model.safetensors") }))
}

/// The codec of the latents that the weights in `file`, or the run in `file`, were trained on, as its user named it.
pub fn codec_of(file: &Path) -> Option<String> {
    // The run itself, or RUN/checkpoints/step-…, or a file in that.
    let run = file.ancestors().take(4).find(|folder| folder.join("sessions.jsonl").is_file())?;
    Session::last(run).map(|session| session.data.codec)
}

/// The SHA-256 that the run recorded for a file of weights, if it is one of a run's checkpoint.
fn recorded(file: &Path) -> Option<String> {
    let file = file.canonicalize().ok()?;
    Some(state_of(file.parent()?)?.get("files")?.get(file.file_name()?.to_str()?)?.as_str()?.to_owned())
}

/// Begins to hash a checkpoint that [`check`] is going to ask about.
pub fn start_check(checkpoint: &Checkpoint) {
    if checkpoint.files().iter().any(|file| recorded(file).is_some()) {
        checkpoint.digest().start();
    }
}

/// Whether a checkpoint, if it is of a training run's, is what the run wrote. Waits for its hash.
pub fn check(checkpoint: &Checkpoint) -> Result<()> {
    match checkpoint.files() {
        [file] => check_file(file, || Ok(checkpoint.sha256()?.to_owned())),
        _ => Ok(()),
    }
}

/// Whether a file of weights, if it is of a training run's checkpoint, is what the run wrote: if it has the SHA-256 that it had then.
pub fn check_file(file: &Path, sha256: impl FnOnce() -> Result<String>) -> Result<()> {
    let Some(recorded) = recorded(file) else { return Ok(()) };
    let found = sha256()?;
    ensure!(
        found == recorded,
        "{} is not what the training run wrote: its SHA-256 is {found}, the state.json beside it has {recorded}\n  \
         help: take another checkpoint of the run, or copy this one anew",
        file.display()
    );
    Ok(())
}

fn is_checkpoint(path: &Path) -> bool {
    path.join("state.json").is_file() && path.join("model.safetensors").is_file()
}

fn newest(checkpoints: &Path) -> Option<PathBuf> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let found = fs::read_dir(checkpoints).ok()?.flatten().map(|entry| entry.path());
    let found = found.filter_map(|path| Some((step(&path)?, path)));
    found.max().map(|(_, path)| path)
}

/// The name of the first average's file: the recipe in the checkpoint has their order.
fn average_of(checkpoint: &Path) -> Option<String> {
    let recipe = Recipe::from_toml(state_of(checkpoint)?.get("recipe")?.as_str()?, &[]).ok()?;
    recipe.ema.decays.first().map(|decay| format!("ema-{decay}.safetensors"))
}

fn state_of(checkpoint: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(checkpoint.join("state.json")).ok()?).ok()
}
