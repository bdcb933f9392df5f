//! What the commands that train have in common: they call `dit-cli train` so that an interrupted one continues.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// The exit code of a run that was asked to stop.
const INTERRUPTED: i32 = 130;

/// Runs `command`, whose first word is its name for messages.
pub fn succeed(what: &str, command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{what} does not start"))?;
    if status.code() == Some(INTERRUPTED) {
        bail!("{what} was interrupted; the same command continues");
    }
    ensure!(status.success(), "{what} failed ({status})");
    Ok(())
}

/// A run's checkpoints, by step.
pub fn checkpoints(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.join("checkpoints");
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// A run that there shall be.
pub struct Wanted<'a> {
    pub recipe: &'a Path,
    /// Its steps, the recipe's or others.
    pub steps: u64,
    /// Folder of latents.
    pub data: &'a Path,
    /// Folder of the run.
    pub run: &'a Path,
}

/// [`train_wanted`], with the recipe's steps.
pub fn train(binary: &Path, recipe: &Path, data: &Path, run: &Path, more: &[String]) -> Result<PathBuf> {
    train_wanted(binary, &Wanted { recipe, steps: steps_of(recipe)?, data, run }, more)
}

/// Trains until the run has all its steps: begins, continues, or finds it done. The last checkpoint's folder.
pub fn train_wanted(binary: &Path, wanted: &Wanted<'_>, more: &[String]) -> Result<PathBuf> {
    let &Wanted { recipe, steps, data, run } = wanted;
    let newest = checkpoints(run)?.pop();
    if !matches!(&newest, Some((step, _)) if *step >= steps) {
        let mut command = Command::new(binary);
        command.arg("train").arg("--out").arg(run).arg("--data").arg(data).args(more);
        match newest {
            Some(_) => command.arg("--resume"),
            None => command.arg("--config").arg(recipe).arg(format!("--set=train.steps={steps}")),
        };
        succeed("dit-cli train", &mut command)?;
    }
    match checkpoints(run)?.pop() {
        Some((step, path)) if step >= steps => Ok(path),
        _ => bail!("{} has no checkpoint of step {steps}", run.display()),
    }
}

/// `train.steps` of a recipe.
pub fn steps_of(recipe: &Path) -> Result<u64> {
    let text = fs::read_to_string(recipe).with_context(|| format!("cannot read {}", recipe.display()))?;
    let table: toml::Table = text.parse().with_context(|| recipe.display().to_string())?;
    let steps = table.get("train").and_then(|train| train.get("steps")?.as_integer());
    let steps = steps.and_then(|steps| u64::try_from(steps).ok());
    steps.with_context(|| format!("{} has no train.steps", recipe.display()))
}

/// The file of the first average in a checkpoint's folder.
pub fn average_in(checkpoint: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(checkpoint).with_context(|| format!("cannot list {}", checkpoint.display()))?;
    let name = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ema-"));
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(name).collect();
    found.sort();
    found.into_iter().next().with_context(|| format!("{} has no averaged weights", checkpoint.display()))
}
