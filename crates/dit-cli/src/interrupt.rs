//! Ctrl-C and SIGTERM.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};

/// What a shell expects of a process that a signal ended.
pub const EXIT_CODE: i32 = 130;

type Last = Box<dyn FnOnce() + Send>;

/// What to do before an interrupted process exits.
#[derive(Clone, Default)]
pub struct OnInterrupt(Arc<Mutex<Option<Last>>>);

impl OnInterrupt {
    /// From now on Ctrl-C and SIGTERM run what [`set`](Self::set) holds, and end the process at once, whatever libtorch is
    /// computing.
    pub fn install() -> Result<Self> {
        let this = Self::default();
        let held = this.clone();
        ctrlc::set_handler(move || {
            let last = held.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(last) = last {
                // Whatever happens in there, the process ends.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(last));
            }
            let _ = std::io::stderr().flush();
            exit_now(EXIT_CODE);
        })
        .context("cannot watch for Ctrl-C")?;
        Ok(this)
    }

    /// What runs when a signal comes: it should keep what is finished.
    pub fn set(&self, last: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(last));
    }

    /// The work is done: nothing is left to keep. Blocks for good if the handler is already at work, which then exits.
    pub fn clear(&self) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_none() {
            loop {
                thread::park();
            }
        }
    }
}

/// From now on Ctrl-C and SIGTERM run `first` once, and end the process at once when they come again.
pub fn ask_first(first: impl Fn() + Send + 'static) -> Result<()> {
    let mut asked = false;
    ctrlc::set_handler(move || {
        if std::mem::replace(&mut asked, true) {
            exit_now(EXIT_CODE);
        }
        first();
    })
    .context("cannot watch for Ctrl-C")
}

/// Ends the process without running destructors of libraries, which would wait for, or race with, threads that still compute.
pub fn exit_now(code: i32) -> ! {
    #[cfg(unix)]
    // SAFETY: _exit only ends the process.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}
