//! Pictures are written beside what computes the next ones: packing a picture's file takes as long as some steps of a GPU, which would stand
//! still meanwhile.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, Scope, ScopedJoinHandle},
};

use dit_image::Picture;

use crate::{Batch, Error, LateProvenance, Outputs, SharedOutputs};

/// Pictures that may wait to be written, before those who make more wait, too.
const WAITING: usize = 8;

/// A finished picture on its way to the outputs.
pub(crate) struct Finished {
    pub batch: Arc<Batch>,
    pub image: u64,
    pub picture: Picture,
}

impl Finished {
    pub(crate) fn hand_to(self, outputs: &mut Outputs) -> Result<(), Error> {
        outputs.push_picture(&self.batch, self.image, self.picture)
    }
}

/// Finished pictures that are not yet with the outputs. They are taken by whoever holds the outputs, so that none is ever in between.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Finished>,
    /// No more will come.
    closed: bool,
    /// One is being written.
    busy: bool,
    /// Nobody writes any longer.
    abandoned: bool,
}

/// That nobody writes any longer; why is told by [`Writer::finish`].
#[derive(Debug)]
pub(crate) struct Abandoned;

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until` says so.
    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), |state| !until(state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// The next one, if there is one.
    pub(crate) fn take(&self) -> Option<Finished> {
        let next = self.lock().waiting.pop_front();
        self.changed.notify_all();
        next
    }
}

/// A thread that hands pictures to the outputs, in the order in which it is given them.
pub(crate) struct Writer<'scope> {
    outputs: &'scope SharedOutputs,
    /// None once it was waited for.
    thread: Option<ScopedJoinHandle<'scope, Result<(), Error>>>,
}

impl<'scope> Writer<'scope> {
    /// With `hashes` where each picture's file tells them: they are waited for before it is written, and it is written without a
    /// recipe where they turn out not to be known.
    ///
    /// # Errors
    /// [`Error::Thread`] where the system has no thread left.
    pub(crate) fn start(
        scope: &'scope Scope<'scope, '_>,
        outputs: &'scope SharedOutputs,
        hashes: Option<&'scope LateProvenance>,
    ) -> Result<Self, Error> {
        outputs.queue().change(|state| *state = State::default());
        let thread = Builder::new().name("pictures".to_owned()).spawn_scoped(scope, move || {
            // Also after a panic: somebody may be waiting.
            let _abandoned = AtEnd(outputs.queue());
            write(outputs, hashes)
        });
        Ok(Self { outputs, thread: Some(thread.map_err(Error::Thread)?) })
    }

    /// Hands over a picture; waits while too many wait.
    ///
    /// # Errors
    /// Where nobody writes any longer.
    pub(crate) fn push(&self, finished: Finished) -> Result<(), Abandoned> {
        let queue = self.outputs.queue();
        let mut state = queue.wait(|state| state.waiting.len() < WAITING || state.abandoned);
        if state.abandoned {
            return Err(Abandoned);
        }
        state.waiting.push_back(finished);
        drop(state);
        queue.changed.notify_all();
        Ok(())
    }

    /// Waits until all that was handed over is written.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn catch_up(&self) -> Result<(), Abandoned> {
        let state = self.outputs.queue().wait(|state| (state.waiting.is_empty() && !state.busy) || state.abandoned);
        if state.abandoned { Err(Abandoned) } else { Ok(()) }
    }

    /// Whether nobody writes any longer.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.outputs.queue().lock().abandoned
    }

    /// Waits until all that was handed over is written.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.outputs.queue().change(|state| state.closed = true);
        let written = self.thread.take().map_or(Ok(Ok(())), ScopedJoinHandle::join);
        written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Also where a run ends by a panic: its scope waits for the thread.
impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.outputs.queue().change(|state| state.closed = true);
    }
}

struct AtEnd<'a>(&'a Queue);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.change(|state| (state.abandoned, state.busy) = (true, false));
    }
}

fn write(outputs: &SharedOutputs, hashes: Option<&LateProvenance>) -> Result<(), Error> {
    let queue = outputs.queue();
    loop {
        let state = queue.wait(|state| !state.waiting.is_empty() || state.closed);
        if state.waiting.is_empty() {
            return Ok(());
        }
        drop(state);
        if let Some(hashes) = hashes {
            // Whether they are known is for the run to say.
            let _known = hashes.get();
        }
        // Whoever completes the outputs meanwhile takes what waits with them.
        let are_open = outputs.with(|outputs| {
            queue.change(|state| state.busy = true);
            queue.take().map_or(Ok(()), |finished| finished.hand_to(outputs))?;
            Ok(true)
        })?;
        if !are_open {
            let _too_late = queue.take();
        }
        queue.change(|state| state.busy = false);
    }
}
