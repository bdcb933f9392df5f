//! Stopping early.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::FetchError;

type Hook = Box<dyn FnOnce() + Send>;

/// A switch that a signal handler's thread throws and the download watches. Clones share it.
#[derive(Clone, Default)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    thrown: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
    sleepers: Condvar,
}

impl Cancel {
    /// A switch that nobody has thrown yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the fetch: sleeping threads wake, open connections are shut down, what arrived stays on disk.
    /// Not async-signal-safe: call it from a thread (as the `ctrlc` crate does).
    pub fn cancel(&self) {
        let hooks = {
            // Thrown under the lock, so that a sleeper cannot miss it between its check and its wait.
            let mut hooks = self.inner.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.thrown.store(true, Ordering::SeqCst);
            std::mem::take(&mut *hooks)
        };
        self.inner.sleepers.notify_all();
        for hook in hooks {
            hook();
        }
    }

    /// Whether the switch was thrown.
    pub fn is_cancelled(&self) -> bool {
        self.inner.thrown.load(Ordering::SeqCst)
    }

    /// `Err(Interrupted)` once thrown.
    pub(crate) fn check(&self) -> Result<(), FetchError> {
        if self.is_cancelled() { Err(FetchError::Interrupted) } else { Ok(()) }
    }

    /// Runs `hook` when the switch is thrown, or now if it was.
    pub(crate) fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        let mut hooks = self.inner.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cancelled() {
            drop(hooks);
            hook();
        } else {
            hooks.push(Box::new(hook));
        }
    }

    /// Waits, or less when the switch is thrown.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), FetchError> {
        let guard = self.inner.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.inner.sleepers.wait_timeout_while(guard, time, |_| !self.is_cancelled());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.check()
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_thrown_switch_ends_a_sleep_and_runs_hooks() {
        let cancel = Cancel::new();
        let ran = Arc::new(AtomicBool::new(false));
        let seen = ran.clone();
        cancel.on_cancel(move || seen.store(true, Ordering::SeqCst));
        let other = cancel.clone();
        let thrower = std::thread::spawn(move || other.cancel());
        let start = Instant::now();
        assert!(matches!(cancel.sleep(Duration::from_secs(600)), Err(FetchError::Interrupted)));
        assert!(start.elapsed() < Duration::from_secs(300));
        thrower.join().unwrap();
        assert!(ran.load(Ordering::SeqCst));
        assert!(matches!(cancel.check(), Err(FetchError::Interrupted)));
    }
}
