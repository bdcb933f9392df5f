//! Training that may end at any time: its state is on the disk, beside the result, until that is there.

use std::{
    error::Error,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dit_train::StopRequest;
use indicatif::ProgressBar;

use crate::{interrupt, speak::say};

/// A state that could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(180);
/// Training that has no steps left tries to write what it has as often as this.
const WAIT_AT_THE_END: Duration = Duration::from_secs(10);

/// What is trained, a step at a time.
pub trait Resumable {
    /// What a step tells.
    type Report;
    type Error: Fault;

    fn step(&mut self) -> Result<Self::Report, Self::Error>;
    /// Writes the state: whole or not at all.
    fn save(&self, path: &Path) -> Result<(), Self::Error>;
    fn steps_taken(&self) -> u64;
    fn is_done(&self) -> bool;
}

/// Why a step or a file failed.
pub trait Fault: Error + Send + Sync + 'static {
    /// Whether a file could not be written, for want of space say, which may pass.
    fn is_refused_file(&self) -> bool;
    /// Whether a step that failed so left everything as it was before.
    fn changed_nothing(&self) -> bool;
}

/// A training that this process may write the result of.
pub struct Session {
    out: PathBuf,
    stop: StopRequest,
    lock: Lock,
}

impl Session {
    /// From now on signals stop the training after a step, and no other process trains `out`.
    pub fn begin(out: &Path) -> Result<Self> {
        let stop = StopRequest::new();
        let asked = stop.clone();
        interrupt::ask_first(move || {
            asked.request();
            say(format_args!("\nstopping after this step, with its state on the disk; Ctrl-C once more stops at once"));
        })?;
        Ok(Self { out: out.to_owned(), stop, lock: Lock::take(out)? })
    }

    /// Where the state is until the training is done: `OUT.training` beside the result.
    pub fn state(&self) -> PathBuf {
        beside(&self.out, ".training")
    }

    /// The state of a training that was stopped, if there is one.
    pub fn found(&self) -> Option<PathBuf> {
        Some(self.state()).filter(|state| state.exists())
    }

    /// All steps that are left, each told to `told`; the state written every so many of them, and at the end. Where a stop is
    /// requested, the process ends after the step.
    pub fn train<T: Resumable>(
        self,
        training: &mut T,
        save_every: u64,
        bar: &ProgressBar,
        told: &mut dyn FnMut(&T, T::Report),
    ) -> Result<Self> {
        let state = self.state();
        let begun_at = training.steps_taken();
        if begun_at > 0 {
            say(format_args!("continues {} at step {begun_at}", state.display()));
        }
        let mut again: Option<Instant> = None;
        while !training.is_done() && !self.stop.is_requested() {
            match training.step() {
                Ok(report) => told(training, report),
                Err(error) => {
                    bar.finish_and_clear();
                    if error.changed_nothing() && training.steps_taken() > begun_at {
                        keep(training, &state);
                    }
                    return Err(error.into());
                }
            }
            let step = training.steps_taken();
            bar.set_position(step);
            let due = step.is_multiple_of(save_every) || again.is_some_and(|at| Instant::now() >= at);
            if due && !training.is_done() {
                again = match training.save(&state) {
                    Ok(()) => None,
                    Err(error) if error.is_refused_file() => {
                        bar.suspend(|| say(format_args!("warning: no state of step {step}: {error}")));
                        Some(Instant::now() + RETRY_AFTER)
                    }
                    Err(error) => return Err(error.into()),
                };
            }
        }
        bar.finish_and_clear();
        self.until_written(|| training.save(&state))?;
        if training.is_done() {
            return Ok(self);
        }
        say(format_args!(
            "{} steps taken; the same command continues from {}",
            training.steps_taken(),
            state.display()
        ));
        drop(self.lock);
        interrupt::exit_now(interrupt::EXIT_CODE);
    }

    /// Does `write` until the disk takes it, or a stop is requested.
    pub fn until_written<T, E: Fault>(&self, mut write: impl FnMut() -> Result<T, E>) -> Result<T> {
        let mut told = false;
        loop {
            let error = match write() {
                Err(error) if error.is_refused_file() && !self.stop.is_requested() => error,
                other => return Ok(other?),
            };
            if !std::mem::replace(&mut told, true) {
                say(format_args!(
                    "warning: {error}\n  it is tried again until it can be written: make room; Ctrl-C gives up"
                ));
            }
            let failed = Instant::now();
            while failed.elapsed() < WAIT_AT_THE_END && !self.stop.is_requested() {
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// The result is there, and the state no longer needed.
    pub fn finish(self) -> Result<()> {
        let state = self.state();
        match fs::remove_file(&state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", state.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Writes the state of the step before one that failed.
fn keep<T: Resumable>(training: &T, state: &Path) {
    let step = training.steps_taken();
    match training.save(state) {
        Ok(()) => say(format_args!("the state of step {step} is in {}", state.display())),
        Err(error) => say(format_args!("warning: no state of step {step}: {error}")),
    }
}

/// Keeps a second process from training the same file: `OUT.lock`, there as long as the training.
struct Lock {
    path: PathBuf,
    _held: dit_files::Lock,
}

impl Lock {
    fn take(out: &Path) -> Result<Self> {
        let path = beside(out, ".lock");
        let cannot = || format!("cannot lock {}", path.display());
        loop {
            let Some(held) = dit_files::Lock::try_take(&path).with_context(cannot)? else {
                bail!(
                    "another process is training {}\n  help: wait for it to end, or choose another --out",
                    out.display()
                )
            };
            // One that has just ended may have taken the file away between the two.
            let inode = held.file().metadata().with_context(cannot)?.ino();
            if fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == inode) {
                return Ok(Self { path, _held: held });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still held. One that stays is taken over by the next process.
        let _ = fs::remove_file(&self.path);
    }
}

/// `out` with more after its name.
fn beside(out: &Path, more: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(more);
    out.with_file_name(name)
}
