use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// A wish to stop, that any thread or a signal handler's may state: the run finishes its step, writes a checkpoint and ends. What it
/// is measuring meanwhile is left after the batch at hand, and measured when the run continues.
///
/// Where that checkpoint cannot be written, the run waits for room; stated again then, the wish is to end without it.
#[derive(Debug, Clone, Default)]
pub struct StopRequest(Arc<AtomicU32>);

impl StopRequest {
    /// Not stated yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// States it, for all clones.
    pub fn request(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it was stated.
    pub fn is_requested(&self) -> bool {
        self.times() > 0
    }

    /// How often it was stated.
    pub(crate) fn times(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}
