//! What a signal that asks a run to end leads to: it depends on what the run is at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use dit_train::StopRequest;

use crate::{interrupt, speak::say};

/// What a run is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Data, weights and what it is measured by are read; no step was taken.
    #[default]
    Opening,
    /// Steps are taken.
    Training,
    /// All are, and the last checkpoint waits for room.
    WaitingForRoom,
}

/// The stage of a run, for the thread that hears signals too.
#[derive(Debug, Clone, Default)]
pub struct CurrentStage(Arc<Mutex<Stage>>);

impl CurrentStage {
    /// The run is at this from now on; waits for good where it is being ended.
    pub fn set(&self, stage: Stage) {
        *self.lock() = stage;
    }

    /// From now on signals end a run that is opening, and request `stop` of another.
    pub fn listen(&self, stop: &StopRequest) -> Result<()> {
        let (current, stop) = (self.clone(), stop.clone());
        interrupt::ask_first(move || {
            // Locked while it speaks, so that no step begins then.
            let stage = current.lock();
            match *stage {
                Stage::Opening => {
                    say(format_args!(
                        "\nstopped before a step was taken: no checkpoint was written or changed, and the same command begins again"
                    ));
                    interrupt::exit_now(interrupt::EXIT_CODE);
                }
                Stage::Training => {
                    stop.request();
                    say(format_args!("\nstopping after this step, with a checkpoint; Ctrl-C once more stops at once"));
                }
                Stage::WaitingForRoom => {
                    stop.request();
                    say(format_args!("\nstopping without the last checkpoint"));
                }
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
