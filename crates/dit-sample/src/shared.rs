use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Error, Kept, Outputs, writer::Queue};

/// [`Outputs`] that another thread may complete: the one that hears Ctrl-C, while libtorch computes on this one.
///
/// They are locked only while results are handed over, never while something is computed or packed or, in [`run`](crate::run), hashes are
/// waited for; and they are completed once, with all pictures that are finished.
#[derive(Clone, Default)]
pub struct SharedOutputs(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    queue: Queue,
}

#[derive(Default)]
enum State {
    /// Nothing has been opened.
    #[default]
    None,
    Open(Box<Outputs>),
    /// Completed.
    Done,
}

impl SharedOutputs {
    /// Opens them with `create`.
    ///
    /// # Errors
    /// What `create` fails with.
    pub fn open(&self, create: impl FnOnce() -> Result<Outputs, Error>) -> Result<(), Error> {
        let mut state = self.lock();
        *state = State::Open(Box::new(create()?));
        Ok(())
    }

    /// Hands something over; without effect once they are completed.
    ///
    /// # Errors
    /// [`Error::NotOpened`] before they are opened.
    pub(crate) fn with<T: Default>(&self, f: impl FnOnce(&mut Outputs) -> Result<T, Error>) -> Result<T, Error> {
        match &mut *self.lock() {
            State::Open(outputs) => f(outputs),
            State::None => Err(Error::NotOpened),
            State::Done => Ok(T::default()),
        }
    }

    /// Pictures that an earlier run had finished.
    pub fn found(&self) -> usize {
        match &*self.lock() {
            State::Open(outputs) => outputs.found(),
            State::None | State::Done => 0,
        }
    }

    /// Completes them; see [`Outputs::finish`]. `None` if there was nothing to complete, or they were completed before.
    pub fn finish(&self) -> Option<Kept> {
        self.complete(&mut self.lock(), Outputs::finish)
    }

    /// Completes them with what there is; see [`Outputs::finish_early`]. `None` if there was nothing to complete.
    pub fn finish_early(&self) -> Option<Kept> {
        self.complete(&mut self.lock(), Outputs::finish_early)
    }

    /// [`finish_early`](Self::finish_early) for a thread that ends the process next: they stay locked, so that no other thread
    /// begins a file in between.
    pub fn finish_at_exit(&self) -> Option<Kept> {
        let mut state = self.lock();
        let written = self.complete(&mut state, Outputs::finish_early);
        std::mem::forget(state);
        written
    }

    /// Locks, also after a panic elsewhere: what was handed over before is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pictures whose own files are not yet written.
    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// What all pictures are in comes before the files of each, which wait for hashes.
    fn complete(&self, state: &mut State, complete: impl FnOnce(Outputs) -> Kept) -> Option<Kept> {
        let State::Open(outputs) = std::mem::replace(state, State::Done) else { return None };
        let own = outputs.own_files().clone();
        let kept = complete(*outputs);
        Some(kept.with_own_files(self.0.queue.complete(&own)))
    }
}
