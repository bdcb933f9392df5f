use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A wish to stop, that any thread or a signal handler's may state: the run finishes its step, writes a checkpoint and ends.
#[derive(Debug, Clone, Default)]
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Not stated yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// States it, for all clones.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was stated.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
