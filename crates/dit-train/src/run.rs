mod measuring;
mod opening;
mod saving;

pub use opening::refuse_changes;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dit_data::shard::Position;
use dit_files::Lock;
use dit_model::DitConfig;
use dit_recipe::{Every, NonFinitePolicy, Recipe};

use crate::{
    BucketLosses, Evaluator, Event, Measurement, NonFiniteReport, Observer, Remedy, SampleLoss, StepReport,
    StopRequest, TrainError,
    checkpoint::CheckpointFolder,
    data::RunData,
    ema::EmaLag,
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
    /// What is due after this step and has not been measured.
    owed: Vec<Measurement>,
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
    /// It was asked to stop, before the last step or before what is due after that was measured; it can be continued.
    Stopped {
        /// Steps taken.
        step: u64,
        /// The last checkpoint.
        checkpoint: PathBuf,
    },
}

impl Run {
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
            let help = "--set eval.every=never trains without";
            return Err(TrainError::Unfit { problems: vec![problem.to_owned()], help });
        }
        tell(observer, &Event::Started { step: self.step, steps, owed: &self.owed })?;
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
        Ok(match step < steps || !self.owed.is_empty() {
            true => Outcome::Stopped { step, checkpoint },
            false => Outcome::Finished { step, checkpoint },
        })
    }

    /// What is owed after the last step, then all steps that are left, or those until `stop` is requested, and what is due after
    /// each.
    fn take_steps(&mut self, observer: &mut dyn Observer, stop: &StopRequest) -> Result<(), TrainError> {
        let steps = self.recipe.train.steps;
        self.measure(observer, stop)?;
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
            // Before it is measured, which takes memory: a process that is killed for that has lost nothing.
            if self.is_checkpoint_due() && self.try_to_save(observer)? {
                rollbacks_here = 0;
            }
            self.measure(observer, stop)?;
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
        Feed::new(batches, self.data.labels(&self.recipe), first, self.trainer.device())
    }

    fn advance(&mut self, data: &StepData) {
        self.step += 1;
        self.position = Some(data.after);
        self.owed = self.due();
    }

    fn report(&self, samples: &[SampleLoss], lr: f64, grad_norm: f64, images: usize, time: Duration) -> StepReport {
        let mut losses = BucketLosses::new(self.trainer.objective.timesteps());
        samples.iter().for_each(|sample| losses.add(sample));
        StepReport { step: self.step, losses: losses.mean().unwrap_or_default(), lr, grad_norm, images, time }
    }

    fn warn_of_lagging_averages(&self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let steps = self.recipe.train.steps;
        for lag in self.trainer.emas.iter().filter_map(|ema| EmaLag::after(steps, ema.decay())) {
            tell(observer, &Event::EmaLags(lag))?;
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
