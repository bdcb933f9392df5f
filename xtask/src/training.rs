//! What the commands that train have in common: they call `dit-cli train` so that an interrupted one continues.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use dit_recipe::{Difference, Recipe};
use dit_weights::sha256_of;
use serde::Deserialize;

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
    /// The recipe's file.
    pub recipe: &'a Path,
    /// What the run has otherwise, each `section.key=value`.
    pub overrides: Vec<String>,
    /// Folder of latents.
    pub data: &'a Path,
    /// Folder of the run.
    pub run: &'a Path,
    /// CPU threads; all cores where there is none.
    pub threads: Option<usize>,
    /// File that what the run says is added to; the terminal where there is none.
    pub log: Option<PathBuf>,
}

/// Trains until the run has all its steps: begins, continues, or finds it done. The last checkpoint's folder.
///
/// A run that was begun by another recipe, or on other latents, is refused.
pub fn train(binary: &Path, wanted: &Wanted<'_>) -> Result<PathBuf> {
    let Wanted { recipe, overrides, data, run, threads, log } = wanted;
    let steps = wanted.read_recipe()?.train.steps;
    let newest = checkpoints(run)?.pop();
    if let Some((_, checkpoint)) = &newest {
        wanted.ensure_is(checkpoint)?;
    }
    if !matches!(&newest, Some((step, _)) if *step >= steps) {
        let mut command = Command::new(binary);
        command.arg("train").arg("--out").arg(run).arg("--data").arg(data).arg("--config").arg(recipe);
        command.args(overrides.iter().map(|value| format!("--set={value}")));
        command.args(threads.iter().map(|threads| format!("--threads={threads}")));
        command.args(newest.iter().map(|_| "--resume"));
        if let Some(log) = log {
            let file = fs::OpenOptions::new().create(true).append(true).open(log);
            command.stderr(file.with_context(|| format!("cannot write {}", log.display()))?);
        }
        let trained = succeed("dit-cli train", &mut command);
        match log {
            Some(log) => trained.with_context(|| format!("{} says how far it got", log.display()))?,
            None => trained?,
        }
    }
    match checkpoints(run)?.pop() {
        Some((step, path)) if step >= steps => Ok(path),
        _ => bail!("{} has no checkpoint of step {steps}", run.display()),
    }
}

/// What a checkpoint says of the run that it is of.
struct State {
    recipe: Recipe,
    /// SHA-256 of the latents' manifest, which has that of every shard.
    manifest: String,
}

/// The same as its file has it.
#[derive(Deserialize)]
struct StateFile {
    /// Whole.
    recipe: String,
    data: DataEntry,
}

#[derive(Deserialize)]
struct DataEntry {
    manifest: String,
}

impl State {
    fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join("state.json");
        let text = fs::read(&path).map_err(anyhow::Error::from);
        let file: StateFile = text
            .and_then(|text| Ok(serde_json::from_slice(&text)?))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let recipe = Recipe::from_toml(&file.recipe, &[]).with_context(|| path.display().to_string())?;
        Ok(Self { recipe, manifest: file.data.manifest })
    }
}

impl Wanted<'_> {
    fn read_recipe(&self) -> Result<Recipe> {
        let text = fs::read_to_string(self.recipe).with_context(|| format!("cannot read {}", self.recipe.display()))?;
        Recipe::from_toml(&text, &self.overrides).with_context(|| self.recipe.display().to_string())
    }

    /// Makes sure that `checkpoint` is of this recipe, but for what may change while a run goes on, and of these latents.
    fn ensure_is(&self, checkpoint: &Path) -> Result<()> {
        let (recipe, data, run) = (self.recipe.display(), self.data.display(), self.run.display());
        let state = State::read(checkpoint)?;
        let mut differences = state.recipe.differences(&self.read_recipe()?);
        differences.retain(|difference| !difference.may_change);
        let line = |found: &Difference| format!("  {}: {} there, {} wanted", found.key, found.before, found.after);
        let lines: Vec<String> = differences.iter().map(line).collect();
        let help = format!("help: use another --out, or remove {run}");
        ensure!(lines.is_empty(), "{run} was begun by another recipe than {recipe}:\n{}\n  {help}", lines.join("\n"));
        let manifest = sha256_of(&[self.data.join("manifest.json")]).with_context(|| format!("cannot read {data}"))?;
        ensure!(state.manifest == manifest, "{run} was begun on other latents than those in {data}\n  {help}");
        Ok(())
    }
}

/// The file of the first average in a checkpoint's folder: of the decay that its recipe names first.
pub fn average_in(checkpoint: &Path) -> Result<PathBuf> {
    let State { recipe, .. } = State::read(checkpoint)?;
    let decay = recipe.ema.decays.first().with_context(|| format!("{} has no average", checkpoint.display()))?;
    let path = checkpoint.join(format!("ema-{decay}.safetensors"));
    ensure!(path.is_file(), "{} is not there", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "[train]\nsteps = 20\n[optim]\nlr = 1e-3\n";

    /// A finished run of [`RECIPE`]; the recipe's file has `now`, the latents' manifest `manifest`.
    #[track_caller]
    fn check(now: &str, overrides: &[&str], manifest: &str, expected: Result<(), &str>) {
        let folder = tempfile::tempdir().unwrap();
        let (data, run, recipe) = (folder.path().join("data"), folder.path().join("run"), folder.path().join("r.toml"));
        let checkpoint = run.join("checkpoints/step-00000020");
        fs::create_dir_all(&checkpoint).unwrap();
        fs::create_dir(&data).unwrap();
        fs::write(data.join("manifest.json"), "{}").unwrap();
        let begun = Recipe::from_toml(RECIPE, &[]).unwrap().to_toml();
        let sha256 = sha256_of(&[data.join("manifest.json")]).unwrap();
        let state = serde_json::json!({"recipe": begun, "data": {"manifest": sha256, "held_out": null}, "step": 20});
        fs::write(checkpoint.join("state.json"), state.to_string()).unwrap();
        fs::write(data.join("manifest.json"), manifest).unwrap();
        fs::write(&recipe, now).unwrap();
        let overrides = overrides.iter().map(|&text| text.to_owned()).collect();
        let wanted = Wanted { recipe: &recipe, overrides, data: &data, run: &run, threads: None, log: None };
        match (train(Path::new("/nothing/is/started"), &wanted), expected) {
            (Ok(found), Ok(())) => assert_eq!(found, checkpoint),
            (Err(error), Err(expected)) => {
                let message = format!("{error:#}");
                assert!(message.contains(expected) && message.contains("another --out, or remove"), "{message}");
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_first_average_is_the_recipe_s_first() {
        let checkpoint = tempfile::tempdir().unwrap();
        let recipe = Recipe::from_toml("[ema]\ndecays = [0.9999, 0.5]\n", &[]).unwrap().to_toml();
        let state = serde_json::json!({"recipe": recipe, "data": {"manifest": "", "held_out": null}, "step": 20});
        fs::write(checkpoint.path().join("state.json"), state.to_string()).unwrap();
        let first = checkpoint.path().join("ema-0.9999.safetensors");
        let error = average_in(checkpoint.path()).unwrap_err().to_string();
        assert!(error.contains("ema-0.9999.safetensors is not there"), "{error}");
        fs::write(checkpoint.path().join("ema-0.5.safetensors"), "").unwrap();
        fs::write(&first, "").unwrap();
        assert_eq!(average_in(checkpoint.path()).unwrap(), first);
    }

    #[test]
    fn a_finished_run_of_another_recipe_or_other_latents_is_refused() {
        check(RECIPE, &[], "{}", Ok(()));
        // What changes no number of a run that is done.
        check(&format!("{RECIPE}\n[samples]\nevery = 5\n"), &["train.steps=10"], "{}", Ok(()));
        check(&RECIPE.replace("1e-3", "2e-3"), &[], "{}", Err("optim.lr: 0.001 there, 0.002 wanted"));
        check(RECIPE, &["train.seed=1"], "{}", Err("train.seed: 0 there, 1 wanted"));
        check(RECIPE, &[], "{ }", Err("other latents"));
    }
}
