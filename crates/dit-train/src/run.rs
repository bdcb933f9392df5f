mod measuring;
mod saving;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dit_data::shard::Position;
use dit_files::Lock;
use dit_model::{DitConfig, Initialization};
use dit_recipe::{Difference, Every, HeldOut, NonFinitePolicy, Precision, Recipe};
use tch::Device;

use crate::{
    BucketLosses, Evaluator, Event, NonFiniteReport, Observer, Remedy, SampleLoss, StepReport, StopRequest, TrainError,
    checkpoint::{CheckpointFolder, Machine, State},
    data::RunData,
    event::MaybeEvaluator,
    feed::{Feed, StepData},
    random::Moment,
    trainer::{Stepped, Trainer},
    validation::Validation,
    window::Window,
};

/// Steps in a row that may be skipped before a run is given up.
const MOST_SKIPPED: u32 = 10;
/// How often a run may go back to one checkpoint.
const MOST_ROLLBACKS: u32 = 3;
/// Above this share of the initial weights, an average is not yet one of the trained weights.
const LAGGING_SHARE: f64 = 0.01;
/// After this a checkpoint that could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(180);
/// So long a run that was asked to stop waits for room for its last checkpoint: whoever asked may be a script that waits for its end.
const ROOM_WAIT: Duration = Duration::from_secs(3600);

/// A training run: a recipe, latents, and a folder that this process alone writes to.
#[derive(Debug)]
pub struct Run {
    recipe: Recipe,
    folder: PathBuf,
    checkpoints: CheckpointFolder,
    data: RunData,
    validation: Option<Validation>,
    evaluator: MaybeEvaluator,
    trainer: Trainer,
    step: u64,
    rollbacks: u32,
    /// None before the first batch.
    position: Option<Position>,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    retry_after: Duration,
    room_wait: Duration,
    /// When a checkpoint that could not be written is tried again.
    retry_at: Option<Instant>,
    /// Held as long as the run.
    _lock: Lock,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are taken.
    Finished {
        /// How many.
        step: u64,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
    /// It was asked to stop; it can be continued.
    Stopped {
        /// Steps taken.
        step: u64,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
}

impl Run {
    /// Begins a run on the latents in `data`. `folder` is made if need be, and may hold anything but checkpoints of a run.
    ///
    /// # Errors
    /// [`TrainError::Exists`], [`TrainError::Locked`]; whatever makes the recipe unfit for the data.
    pub fn start(recipe: &Recipe, data: &Path, folder: &Path, device: Device) -> Result<Self, TrainError> {
        let initialization = Initialization::Reference { seed: recipe.train.seed };
        let run = Self::open(recipe, data, folder, device, initialization)?;
        match run.checkpoints.steps()?.is_empty() {
            true => Ok(run),
            false => Err(TrainError::Exists { path: folder.to_owned() }),
        }
    }

    /// Continues the run in `folder` from its newest checkpoint: everything goes on as if it had never been interrupted, bit by
    /// bit on a CPU with as many threads.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::Locked`], [`TrainError::Damaged`]; [`TrainError::Recipe`] and
    /// [`TrainError::Unfit`] where recipe or data are not those that the run began with.
    pub fn resume(recipe: &Recipe, data: &Path, folder: &Path, device: Device) -> Result<Self, TrainError> {
        let no_run = |problem: &str| TrainError::NoRun { path: folder.to_owned(), problem: problem.to_owned() };
        if !folder.is_dir() {
            return Err(no_run("there is no such folder"));
        }
        let checkpoints = CheckpointFolder::of_run(folder);
        let newest = checkpoints.steps()?.pop().ok_or_else(|| no_run("it has no checkpoint yet"))?;
        let state = State::read(&checkpoints.at(newest))?;
        check_recipe(recipe, &state, folder)?;
        let mut run = Self::open(recipe, data, folder, device, Initialization::Empty)?;
        if run.data.identity != state.data {
            let problem = "the latents are not those that the run began with (their manifest has another hash)";
            return Err(TrainError::Unfit { problems: vec![problem.to_owned()] });
        }
        for (what, before, now) in state.machine_differences(&Machine::of(device)) {
            tracing::warn!(before, now, "another {what}: results will differ in their last bits");
        }
        run.restore(&state, newest)?;
        run.position = Some(state.position);
        run.rollbacks = state.rollbacks;
        Ok(run)
    }

    fn open(
        recipe: &Recipe,
        data: &Path,
        folder: &Path,
        device: Device,
        initialization: Initialization,
    ) -> Result<Self, TrainError> {
        if recipe.train.precision == Precision::Tf32 && !device.is_cuda() {
            let problem = "train.precision is tf32, which CUDA devices have; fp32 and bf16 work everywhere";
            return Err(TrainError::Unfit { problems: vec![problem.to_owned()] });
        }
        let mut data = RunData::open(recipe, data)?;
        // Whether there are enough records, and mirror images, before anything is made.
        data.batches(recipe, None)?;
        dit_files::ensure_folder(folder)?;
        let path = folder.join(".lock");
        let lock = Lock::try_take(&path).map_err(|source| TrainError::Io { action: "lock", path, source })?;
        let lock = lock.ok_or_else(|| TrainError::Locked { path: folder.to_owned() })?;
        let checkpoints = CheckpointFolder::of_run(folder);
        checkpoints.prepare()?;
        let trainer = Trainer::new(recipe, &data.config, data.scale, device, initialization)?;
        let timesteps = trainer.objective.timesteps();
        let validation = match data.take_held_out() {
            Some(held_out) => Some(Validation::new(held_out, recipe, data.labels(recipe), timesteps)?),
            None => None,
        };
        Ok(Self {
            recipe: recipe.clone(),
            folder: folder.to_owned(),
            checkpoints,
            data,
            validation,
            evaluator: MaybeEvaluator::default(),
            trainer,
            step: 0,
            rollbacks: 0,
            position: None,
            saved: None,
            retry_after: RETRY_AFTER,
            room_wait: ROOM_WAIT,
            retry_at: None,
            _lock: lock,
        })
    }

    /// Has `evaluator` called as the recipe's `[eval]` says.
    pub fn evaluate_with(&mut self, evaluator: Box<dyn Evaluator>) {
        self.evaluator = MaybeEvaluator(Some(evaluator));
    }

    /// Has a checkpoint that could not be written tried again after `pause`, not after 3 minutes.
    pub fn retry_checkpoints_after(&mut self, pause: Duration) {
        self.retry_after = pause;
    }

    /// Has a run that was asked to stop wait so long for room for its last checkpoint, not an hour.
    pub fn wait_for_room_at_most(&mut self, time: Duration) {
        self.room_wait = time;
    }

    /// Trains until all steps are taken or `stop` is requested, and leaves a checkpoint of where it ended. Where the disk refuses
    /// the last one, it waits for room until there is some, or `stop` is requested while it waits; where it had been requested
    /// before, for an hour ([`wait_for_room_at_most`](Self::wait_for_room_at_most)).
    ///
    /// # Errors
    /// [`TrainError::Unfit`] where `[eval]` asks for what nothing was given for by [`evaluate_with`](Self::evaluate_with);
    /// [`TrainError::NonFinite`] as the recipe's policy says; [`TrainError::Observer`]; whatever libtorch, the data or the
    /// last checkpoint's disk refuse. The checkpoints written before are intact, and but for an observer's error there is one of
    /// the last whole step, if it can be written.
    ///
    /// # Panics
    /// Where libtorch does, for want of memory say: after such a checkpoint.
    pub fn train(&mut self, observer: &mut dyn Observer, stop: &StopRequest) -> Result<Outcome, TrainError> {
        let steps = self.recipe.train.steps;
        if self.recipe.eval.every != Every::Never && self.evaluator.0.is_none() {
            let problem = "eval.every asks for measurements, and this program has nothing that makes them";
            return Err(TrainError::Unfit { problems: vec![problem.to_owned()] });
        }
        tell(observer, &Event::Started { step: self.step, steps })?;
        self.warn_of_lagging_averages(observer)?;
        if self.recipe.guardian.on_non_finite == NonFinitePolicy::RollBack && self.saved.is_none() {
            // There must be something to go back to.
            self.save(observer)?;
        }
        // After a panic nothing is used but what is known to be whole.
        match catch_unwind(AssertUnwindSafe(|| self.take_steps(observer, stop))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.keep_last_whole_step(&error);
                return Err(error);
            }
            Err(panic) => {
                self.keep_whole_state();
                resume_unwind(panic)
            }
        }
        let checkpoint = match self.saved {
            Some(step) if step == self.step => self.checkpoints.at(step),
            _ => self.save_at_the_end(observer, stop)?,
        };
        let step = self.step;
        Ok(if step < steps { Outcome::Stopped { step, checkpoint } } else { Outcome::Finished { step, checkpoint } })
    }

    /// All steps that are left, or those until `stop` is requested, and what is due after each.
    fn take_steps(&mut self, observer: &mut dyn Observer, stop: &StopRequest) -> Result<(), TrainError> {
        let steps = self.recipe.train.steps;
        let mut feed = self.feed()?;
        let mut window = Window::new(self.trainer.objective.timesteps());
        let (mut skipped, mut rollbacks_here) = (0, 0);
        let mut last = Instant::now();
        while self.step < steps && !stop.is_requested() {
            let data = feed.next()?;
            match self.trainer.step(&data, self.step)? {
                Stepped::Taken { samples, lr, grad_norm } => {
                    skipped = 0;
                    self.advance(&data);
                    let report = self.report(&samples, lr, grad_norm, data.batch.labels.len(), last.elapsed());
                    tell(observer, &Event::Step(&report))?;
                    window.add(&report, &samples);
                }
                Stepped::NonFinite(report) => match self.recipe.guardian.on_non_finite {
                    NonFinitePolicy::Stop => return Err(given_up(report, String::new())),
                    NonFinitePolicy::Skip => {
                        skipped += 1;
                        if skipped > MOST_SKIPPED {
                            return Err(given_up(report, format!(" after {MOST_SKIPPED} skipped steps in a row")));
                        }
                        tell(observer, &Event::NonFinite { report: &report, remedy: Remedy::Skipped })?;
                        self.advance(&data);
                    }
                    NonFinitePolicy::RollBack => {
                        rollbacks_here += 1;
                        if rollbacks_here > MOST_ROLLBACKS {
                            return Err(given_up(report, format!(" after going back {MOST_ROLLBACKS} times")));
                        }
                        drop(feed);
                        let to = self.roll_back(&data)?;
                        feed = self.feed()?;
                        tell(observer, &Event::NonFinite { report: &report, remedy: Remedy::RolledBack { to } })?;
                        window.restart();
                        last = Instant::now();
                        continue;
                    }
                },
            }
            if (self.step.is_multiple_of(self.recipe.train.log_every.get()) || self.step == steps)
                && let Some(report) = window.close(self.step)
            {
                tell(observer, &Event::Window(&report))?;
            }
            self.measure(observer)?;
            if self.step < steps && self.is_checkpoint_due() && self.try_to_save(observer)? {
                rollbacks_here = 0;
            }
            last = Instant::now();
        }
        // A run that is stopped has a part of one.
        match window.close(self.step) {
            Some(report) => tell(observer, &Event::Window(&report)),
            None => Ok(()),
        }
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// What the network is on paper.
    pub fn config(&self) -> &DitConfig {
        &self.data.config
    }

    /// Where the run is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The newest checkpoint's folder.
    pub fn newest_checkpoint(&self) -> Option<PathBuf> {
        self.saved.map(|step| self.checkpoints.at(step))
    }

    fn feed(&self) -> Result<Feed, TrainError> {
        let batches = self.data.batches(&self.recipe, self.position)?;
        let first = Moment { seed: self.recipe.train.seed, step: self.step, rollbacks: self.rollbacks };
        Feed::new(batches, self.data.labels(&self.recipe), first)
    }

    fn advance(&mut self, data: &StepData) {
        self.step += 1;
        self.position = Some(data.after);
    }

    fn report(&self, samples: &[SampleLoss], lr: f64, grad_norm: f64, images: usize, time: Duration) -> StepReport {
        let mut losses = BucketLosses::new(self.trainer.objective.timesteps());
        samples.iter().for_each(|sample| losses.add(sample));
        StepReport { step: self.step, losses: losses.mean().unwrap_or_default(), lr, grad_norm, images, time }
    }

    fn warn_of_lagging_averages(&self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let steps = self.recipe.train.steps;
        for ema in &self.trainer.emas {
            let initial_share = ema.initial_share(steps);
            if initial_share > LAGGING_SHARE {
                tell(observer, &Event::EmaLags { decay: ema.decay(), steps, initial_share })?;
            }
        }
        Ok(())
    }
}

fn tell(observer: &mut dyn Observer, event: &Event<'_>) -> Result<(), TrainError> {
    observer.observe(event).map_err(TrainError::Observer)
}

fn given_up(report: NonFiniteReport, after: String) -> TrainError {
    TrainError::NonFinite { report: Box::new(report), after }
}

/// Whether `recipe` may continue what `state` is of.
fn check_recipe(recipe: &Recipe, state: &State, folder: &Path) -> Result<(), TrainError> {
    let begun = Recipe::from_toml(&state.recipe, &[])?;
    let differences: Vec<String> = begun
        .differences(recipe)
        .into_iter()
        .filter(|difference| !difference.may_change && !is_moved_folder(difference, &begun, recipe))
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
