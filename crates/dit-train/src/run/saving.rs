//! When a run's state goes to the disk, and comes back from it.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use dit_recipe::{Every, NonFinitePolicy};
use dit_weights::{Metadata, ModelConfig};

use super::{Run, tell};
use crate::{
    Event, Observer, Stage, StopRequest, TrainError,
    checkpoint::{self, Progress, Rotation, State},
    feed::StepData,
};

/// A run without steps left tries to write its last checkpoint as often as this.
const WAIT_AT_THE_END: Duration = Duration::from_secs(20);
/// And sees as soon as this that it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A run that waits for room on its disk.
struct Wait {
    /// How often it had been asked to stop when it began to wait.
    asked: u32,
    begun: Instant,
    /// None where only a request ends it.
    at_most: Option<Duration>,
}

impl Wait {
    fn is_given_up(&self, stop: &StopRequest) -> bool {
        stop.times() > self.asked
    }

    fn is_over(&self) -> bool {
        self.at_most.is_some_and(|most| self.begun.elapsed() >= most)
    }
}

impl Run {
    /// Writes a checkpoint, and removes those that the recipe does not keep.
    pub(super) fn save(&mut self, observer: &mut dyn Observer) -> Result<PathBuf, TrainError> {
        let begun = Instant::now();
        let path = self.write_checkpoint()?;
        let train = &self.recipe.train;
        let newest_of = match self.recipe.guardian.on_non_finite {
            NonFinitePolicy::RollBack => Every::Steps(train.checkpoint_every),
            NonFinitePolicy::Stop | NonFinitePolicy::Skip => Every::Never,
        };
        for error in self.checkpoints.rotate(&Rotation { last: train.keep_last, every: train.keep_every, newest_of }) {
            tracing::warn!(%error, "an old checkpoint stays");
        }
        tell(observer, &Event::CheckpointWritten { step: self.step, path: &path, time: begun.elapsed() })?;
        Ok(path)
    }

    fn write_checkpoint(&mut self) -> Result<PathBuf, TrainError> {
        let position = match self.position {
            Some(position) => position,
            None => self.data.batches(&self.recipe, None)?.position(),
        };
        let progress = Progress {
            step: self.step,
            updates: self.trainer.optimizer.steps_taken(),
            rollbacks: self.rollbacks,
            position,
            owed: self.owed.clone(),
        };
        let state = State::new(progress, self.data.identity.clone(), self.recipe.to_toml(), self.trainer.device());
        let path = self.checkpoints.at(self.step);
        checkpoint::save(&self.trainer, state, &self.metadata(), &path)?;
        self.saved = Some(self.step);
        self.retry_at = None;
        Ok(path)
    }

    /// Whether a checkpoint is to be written before the run goes on. The one of the last step is written at the end, unless there
    /// is something to measure before.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        if self.step >= self.recipe.train.steps {
            return !self.owed.is_empty();
        }
        let again = self.retry_at.is_some_and(|at| Instant::now() >= at);
        again || self.step.is_multiple_of(self.recipe.train.checkpoint_every.get())
    }

    /// A checkpoint in the middle of a run, which the run can do without; whether it was written.
    pub(super) fn try_to_save(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        match self.save(observer) {
            Ok(_) => Ok(true),
            Err(error @ TrainError::Observer(_)) => Err(error),
            Err(error) => {
                self.retry_at = Some(Instant::now() + self.retry_after);
                tell(observer, &Event::CheckpointFailed { step: self.step, error: &error, newest: self.saved })?;
                Ok(false)
            }
        }
    }

    /// The last checkpoint, which nothing makes up for: tried until it can be written, or the run is asked to stop while it waits.
    /// One that had been asked before waits no longer than [`Run::wait_for_room_at_most`] says.
    pub(super) fn save_at_the_end(
        &mut self,
        observer: &mut dyn Observer,
        stop: &StopRequest,
    ) -> Result<PathBuf, TrainError> {
        let pause = self.retry_after.min(WAIT_AT_THE_END);
        let mut wait: Option<Wait> = None;
        loop {
            let error = match self.save(observer) {
                Err(error) if error.is_refused_file() => error,
                other => return other,
            };
            let wait = match &wait {
                Some(wait) => wait,
                None => {
                    let asked = stop.times();
                    let at_most = (asked > 0).then_some(self.room_wait);
                    tell(observer, &Event::WaitingForRoom { step: self.step, at_most, error: &error })?;
                    wait.insert(Wait { asked, begun: Instant::now(), at_most })
                }
            };
            if wait.is_over() {
                return Err(error);
            }
            let failed = Instant::now();
            while failed.elapsed() < pause && !wait.is_given_up(stop) && !wait.is_over() {
                thread::sleep(LOOK_EVERY.min(pause));
            }
            if wait.is_given_up(stop) {
                return Err(error);
            }
        }
    }

    /// After an error: what the steps before it came to is kept, unless the weights themselves are bad.
    pub(super) fn keep_last_whole_step(&mut self, error: &TrainError) {
        let bad_weights = matches!(error, TrainError::NonFinite { report, .. } if report.stage == Stage::Weights);
        if !bad_weights && !matches!(error, TrainError::Observer(_)) {
            self.keep_whole_state();
        }
    }

    /// Writes a checkpoint beside those that are there, if a step has been taken since the newest, and none was left half-way.
    pub(super) fn keep_whole_state(&mut self) {
        if self.step == 0 || self.saved == Some(self.step) || !self.trainer.is_whole() {
            return;
        }
        match self.write_checkpoint() {
            Ok(path) => tracing::warn!(path = %path.display(), "the state of the last whole step is kept"),
            Err(error) => tracing::warn!(%error, "the state of the last whole step cannot be kept"),
        }
    }

    /// What the weights' files say about themselves.
    fn metadata(&self) -> Metadata {
        let names = &self.data.class_names;
        let class_names = (names.len() == self.data.config.num_classes).then(|| names.clone());
        Metadata {
            config: Some(ModelConfig::Dit(self.data.config.clone())),
            process: Some(self.recipe.diffusion.process()),
            class_names,
            codec: Some(self.data.codec.clone()),
            ..Metadata::default()
        }
    }

    /// Weights, averages, moments and step of the newest checkpoint.
    pub(super) fn restore(&mut self, state: &State, step: u64) -> Result<(), TrainError> {
        let path = self.checkpoints.at(step);
        if state.step != step {
            let problem = format!("its state is of step {}", state.step);
            return Err(TrainError::Damaged { path, problem });
        }
        self.trainer.changing(|trainer| checkpoint::load(trainer, state, &path))?;
        self.step = step;
        self.saved = Some(step);
        Ok(())
    }

    /// Back to the newest checkpoint that was due, past the data that failed, with other random numbers. One that an interruption or
    /// a full disk brought about is passed over: a run that was never interrupted would not have it.
    pub(super) fn roll_back(&mut self, failed: &StepData) -> Result<u64, TrainError> {
        let every = self.recipe.train.checkpoint_every.get();
        let steps = self.checkpoints.steps()?;
        let to = steps.iter().rev().copied().find(|step| step.is_multiple_of(every)).or(self.saved);
        let to = to.ok_or_else(|| TrainError::NoRun {
            path: self.folder.clone(),
            problem: "it has no checkpoint to go back to".to_owned(),
        })?;
        let state = State::read(&self.checkpoints.at(to))?;
        self.restore(&state, to)?;
        self.position = Some(failed.after);
        self.rollbacks += 1;
        self.owed = Vec::new();
        // They are of a course that the run has left, and it will want their names. Until they are gone, a process that is killed
        // continues on that course, and comes back here.
        for step in steps.into_iter().filter(|step| *step > to) {
            if let Err(error) = self.checkpoints.remove(step) {
                tracing::warn!(%error, "a checkpoint of before the run went back stays");
            }
        }
        Ok(to)
    }
}
