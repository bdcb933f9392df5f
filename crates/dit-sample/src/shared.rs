use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Error, Kept, Outputs};

/// [`Outputs`] that another thread may complete: the one that hears Ctrl-C, while libtorch computes on this one.
///
/// They are locked only while results are handed over, never while something is computed or, in [`run`](crate::run), hashes are
/// waited for; and they are completed once.
#[derive(Clone, Default)]
pub struct SharedOutputs(Arc<Mutex<State>>);

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
        take(&mut self.lock()).map(|outputs| outputs.finish())
    }

    /// Completes them with what there is; see [`Outputs::finish_early`]. `None` if there was nothing to complete.
    pub fn finish_early(&self) -> Option<Kept> {
        take(&mut self.lock()).map(|outputs| outputs.finish_early())
    }

    /// [`finish_early`](Self::finish_early) for a thread that ends the process next: they stay locked, so that no other thread
    /// begins a file in between.
    pub fn finish_at_exit(&self) -> Option<Kept> {
        let mut state = self.lock();
        let written = take(&mut state).map(|outputs| outputs.finish_early());
        std::mem::forget(state);
        written
    }

    /// Locks, also after a panic elsewhere: what was handed over before is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(state: &mut State) -> Option<Box<Outputs>> {
    match std::mem::replace(state, State::Done) {
        State::Open(outputs) => Some(outputs),
        State::None | State::Done => None,
    }
}
