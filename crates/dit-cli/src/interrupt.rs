//! Signals that ask a process to end: Ctrl-C (SIGINT), SIGTERM and SIGHUP. One that this process was started to ignore, as `nohup`
//! and a script's `&` do, stays ignored.

use std::{
    io::Write,
    mem,
    os::raw::c_int,
    ptr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// What a shell expects of a process that a signal ended.
pub const EXIT_CODE: i32 = 130;

type Last = Box<dyn FnOnce() + Send>;

/// What to do before an interrupted process exits.
#[derive(Clone, Default)]
pub struct OnInterrupt(Arc<Mutex<Option<Last>>>);

impl OnInterrupt {
    /// From now on these signals run what [`set`](Self::set) holds, and end the process then, whatever libtorch is computing. A
    /// second Ctrl-C does not wait for that.
    pub fn install() -> Result<Self> {
        let this = Self::default();
        let held = this.clone();
        let mut asked = Asked::default();
        watch(move |signal| match asked.answer(signal, Instant::now()) {
            Answer::Ask => {
                // Beside this thread, which hears what comes meanwhile.
                let ending = held.clone();
                let thread = thread::Builder::new().name("interrupted".to_owned()).spawn(move || ending.end());
                if thread.is_err() {
                    held.end();
                }
            }
            Answer::Wait => {}
            Answer::End => exit_now(EXIT_CODE),
        })?;
        Ok(this)
    }

    /// Does what is to be done before, and ends the process.
    fn end(&self) -> ! {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(last) = last {
            // Whatever happens in there, the process ends.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(last));
        }
        let _ = std::io::stderr().flush();
        exit_now(EXIT_CODE)
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

/// From now on the first of these signals runs `first`, and a second Ctrl-C ends the process at once.
pub fn ask_first(first: impl Fn() + Send + 'static) -> Result<()> {
    let mut asked = Asked::default();
    watch(move |signal| match asked.answer(signal, Instant::now()) {
        Answer::Ask => first(),
        Answer::Wait => {}
        Answer::End => exit_now(EXIT_CODE),
    })
}

/// Two Ctrl-C nearer than this are one: a terminal and a program in between may both hand it on.
const IMPATIENT_AFTER: Duration = Duration::from_secs(1);

/// What was asked of the process so far.
#[derive(Debug, Default)]
struct Asked {
    anything: bool,
    first_ctrl_c: Option<Instant>,
}

/// What a signal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The process is asked to end.
    Ask,
    /// It has been asked already. (A machine that shuts down sends more than one signal.)
    Wait,
    /// It ends at once: only a person who does not want to wait asks for that.
    End,
}

impl Asked {
    fn answer(&mut self, signal: c_int, now: Instant) -> Answer {
        if signal == SIGINT {
            match self.first_ctrl_c {
                Some(first) if now.duration_since(first) >= IMPATIENT_AFTER => return Answer::End,
                Some(_) => {}
                None => self.first_ctrl_c = Some(now),
            }
        }
        if mem::replace(&mut self.anything, true) { Answer::Wait } else { Answer::Ask }
    }
}

/// Calls `on`, in a thread of its own, with each signal that asks this process to end.
fn watch(mut on: impl FnMut(c_int) + Send + 'static) -> Result<()> {
    let failed = "cannot watch for Ctrl-C";
    let watched: Vec<c_int> = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)).collect();
    let mut signals = Signals::new(&watched).context(failed)?;
    let handler = move || signals.forever().for_each(&mut on);
    thread::Builder::new().name("signals".to_owned()).spawn(handler).context(failed)?;
    Ok(())
}

/// Whether whoever started this process has it ignore `signal`.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: sigaction writes a plain struct, all zeros of which are valid, behind a valid pointer, and changes nothing.
    unsafe {
        let mut current: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut current) == 0 && current.sa_sigaction == libc::SIG_IGN
    }
}

/// Ends the process without running destructors of libraries, which would wait for, or race with, threads that still compute.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(signals: &[(c_int, u64)], expected: &[Answer]) {
        let (mut asked, begun) = (Asked::default(), Instant::now());
        let answer = |&(signal, after): &(c_int, u64)| asked.answer(signal, begun + Duration::from_millis(after));
        assert_eq!(signals.iter().map(answer).collect::<Vec<_>>(), expected, "{signals:?}");
    }

    #[test]
    fn only_a_second_ctrl_c_of_a_person_ends_at_once() {
        use Answer::{Ask, End, Wait};
        check(&[(SIGINT, 0), (SIGINT, 1500)], &[Ask, End]);
        check(&[(SIGINT, 0), (SIGINT, 40), (SIGINT, 1500)], &[Ask, Wait, End]);
        check(&[(SIGHUP, 0), (SIGTERM, 50), (SIGTERM, 5000)], &[Ask, Wait, Wait]);
        check(&[(SIGTERM, 0), (SIGINT, 2000), (SIGINT, 4000)], &[Ask, Wait, End]);
    }
}
