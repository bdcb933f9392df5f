//! How a run begins, and how it goes on from a checkpoint.

use std::path::Path;

use dit_files::Lock;
use dit_model::Initialization;
use dit_recipe::{Difference, HeldOut, Precision, Recipe};
use tch::Device;

use super::{RETRY_AFTER, ROOM_WAIT, Run};
use crate::{
    TrainError,
    checkpoint::{self, CheckpointFolder, Machine, State},
    data::RunData,
    event::MaybeEvaluator,
    trainer::Trainer,
    validation::Validation,
};

/// The folder of a run, which this process alone reads and writes as long as it has this.
struct Held {
    checkpoints: CheckpointFolder,
    lock: Lock,
}

impl Held {
    /// Takes a folder that is there, and clears it of what a killed process left.
    fn take(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(".lock");
        let lock = Lock::try_take(&path).map_err(|source| TrainError::Io { action: "lock", path, source })?;
        let lock = lock.ok_or_else(|| TrainError::Locked { path: folder.to_owned() })?;
        let checkpoints = CheckpointFolder::of_run(folder);
        checkpoints.prepare()?;
        Ok(Self { checkpoints, lock })
    }
}

impl Run {
    /// Whether a run could begin in `folder`, for all that can be told without touching it: to be asked before anything that
    /// takes time. [`start`](Self::start) asks again.
    ///
    /// # Errors
    /// [`TrainError::Exists`].
    pub fn check_new(folder: &Path) -> Result<(), TrainError> {
        let exists = || TrainError::Exists { path: folder.to_owned() };
        // A file in the folder's place is an error of making the folder.
        let is_new = !folder.is_dir() || CheckpointFolder::of_run(folder).steps()?.is_empty();
        is_new.then_some(()).ok_or_else(exists)
    }

    /// Whether `folder` could hold a run to continue, likewise. One that has no checkpoint yet may be at its first steps.
    ///
    /// # Errors
    /// [`TrainError::NoRun`].
    pub fn check_begun(folder: &Path) -> Result<(), TrainError> {
        let no_run = |problem: &str| Err(TrainError::NoRun { path: folder.to_owned(), problem: problem.to_owned() });
        if !folder.is_dir() {
            return no_run("there is no such folder");
        }
        if !CheckpointFolder::of_run(folder).is_there() {
            return no_run("it has no checkpoint yet");
        }
        Ok(())
    }

    /// Whether `recipe` may continue the run in `folder`, likewise: a checkpoint that cannot be read is for
    /// [`resume`](Self::resume) to tell, as another process may be about to remove it.
    ///
    /// # Errors
    /// [`TrainError::Recipe`], [`TrainError::StoredRecipe`].
    pub fn check_recipe(recipe: &Recipe, folder: &Path) -> Result<(), TrainError> {
        let checkpoints = CheckpointFolder::of_run(folder);
        let Some(path) = checkpoints.steps()?.pop().map(|newest| checkpoints.at(newest)) else { return Ok(()) };
        match State::read(&path) {
            Ok(state) => check_recipe(recipe, &state, folder, &path),
            Err(_) => Ok(()),
        }
    }

    /// Begins a run on the latents in `data`. `folder` is made if need be, and may hold anything but checkpoints of a run.
    ///
    /// # Errors
    /// [`TrainError::Exists`], [`TrainError::Locked`]; whatever makes the recipe unfit for the data.
    pub fn start(recipe: &Recipe, data: &Path, folder: &Path, device: Device) -> Result<Self, TrainError> {
        let data = data_of(recipe, data, device)?;
        dit_files::ensure_folder(folder)?;
        let held = Held::take(folder)?;
        Self::check_new(folder)?;
        let initialization = Initialization::Reference { seed: recipe.train.seed };
        Self::open(recipe, data, folder, held, device, initialization)
    }

    /// Continues the run in `folder` from its newest checkpoint: everything goes on as if it had never been interrupted, bit by
    /// bit on a CPU with as many threads.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::Locked`], [`TrainError::Damaged`]; [`TrainError::Recipe`] and
    /// [`TrainError::Unfit`] where recipe or data are not those that the run began with.
    pub fn resume(recipe: &Recipe, data: &Path, folder: &Path, device: Device) -> Result<Self, TrainError> {
        Self::check_begun(folder)?;
        // Before anything is read: whoever holds it may be about to write a newer checkpoint and to remove this one.
        let held = Held::take(folder)?;
        let no_run = || TrainError::NoRun { path: folder.to_owned(), problem: "it has no checkpoint yet".to_owned() };
        let newest = held.checkpoints.steps()?.pop().ok_or_else(no_run)?;
        let path = held.checkpoints.at(newest);
        let state = State::read(&path)?;
        check_recipe(recipe, &state, folder, &path)?;
        let data = data_of(recipe, data, device)?;
        if data.identity != state.data {
            let problem = "the latents are not those that the run began with (their manifest has another hash)";
            let help = "give the folder of those latents, and as validation.held_out that of those held out; for others, begin another run in another folder";
            return Err(TrainError::Unfit { problems: vec![problem.to_owned()], help });
        }
        checkpoint::clear(&path)?;
        let mut run = Self::open(recipe, data, folder, held, device, Initialization::Empty)?;
        for (what, before, now) in state.machine_differences(&Machine::of(device)) {
            tracing::warn!(before, now, "another {what}: results will differ in their last bits");
        }
        run.restore(&state, newest)?;
        run.position = Some(state.position);
        run.rollbacks = state.rollbacks;
        // What the recipe no longer asks for is let off.
        let due = run.due();
        run.owed = state.owed.into_iter().filter(|measurement| due.contains(measurement)).collect();
        Ok(run)
    }

    fn open(
        recipe: &Recipe,
        mut data: RunData,
        folder: &Path,
        held: Held,
        device: Device,
        initialization: Initialization,
    ) -> Result<Self, TrainError> {
        let trainer = Trainer::new(recipe, &data.config, data.scale, device, initialization)?;
        let timesteps = trainer.objective.timesteps();
        let validation = match data.take_held_out() {
            Some(held_out) => Some(Validation::new(held_out, recipe, data.labels(recipe), timesteps)?),
            None => None,
        };
        Ok(Self {
            recipe: recipe.clone(),
            folder: folder.to_owned(),
            checkpoints: held.checkpoints,
            data,
            validation,
            evaluator: MaybeEvaluator::default(),
            trainer,
            step: 0,
            rollbacks: 0,
            position: None,
            owed: Vec::new(),
            saved: None,
            retry_after: RETRY_AFTER,
            room_wait: ROOM_WAIT,
            retry_at: None,
            _lock: held.lock,
        })
    }
}

/// The latents, if the recipe can be followed on them and on this device.
fn data_of(recipe: &Recipe, path: &Path, device: Device) -> Result<RunData, TrainError> {
    if recipe.train.precision == Precision::Tf32 && !device.is_cuda() {
        let problem = "train.precision is tf32, which only CUDA devices have".to_owned();
        let help = "fp32 and bf16 work everywhere";
        return Err(TrainError::Unfit { problems: vec![problem], help });
    }
    let data = RunData::open(recipe, path)?;
    // Whether there are enough records, and mirror images, before anything is made.
    data.batches(recipe, None)?;
    Ok(data)
}

/// Whether `recipe` may continue what `state`, of the checkpoint at `path`, is of.
fn check_recipe(recipe: &Recipe, state: &State, folder: &Path, path: &Path) -> Result<(), TrainError> {
    let begun = state.recipe(path)?;
    let differences = begun.differences(recipe).into_iter();
    refuse_changes(folder, differences.filter(|difference| !is_moved_folder(difference, &begun, recipe)))
}

/// Refuses what may not change in the run of `folder`.
///
/// # Errors
/// [`TrainError::Recipe`] lists it.
pub fn refuse_changes(folder: &Path, differences: impl Iterator<Item = Difference>) -> Result<(), TrainError> {
    let refused = differences.filter(|difference| !difference.may_change);
    let differences: Vec<String> = refused
        .map(|difference| format!("{}: {} in the run, {} now", difference.key, difference.before, difference.after))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(TrainError::Recipe { path: folder.to_owned(), differences })
}

/// Whether the held-out latents are only said to lie elsewhere: which they are is known by their hash.
fn is_moved_folder(difference: &Difference, begun: &Recipe, now: &Recipe) -> bool {
    let folder = |recipe: &Recipe| matches!(recipe.validation.held_out, HeldOut::Folder(_));
    difference.key == "validation.held_out" && folder(begun) && folder(now)
}
