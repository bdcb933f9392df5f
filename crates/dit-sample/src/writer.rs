//! Pictures' own files are written beside what computes the next ones: packing one takes as long as some steps of a GPU, which would stand
//! still meanwhile.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, Scope, ScopedJoinHandle},
};

use dit_image::Picture;

use crate::{Batch, Error, own_files::OwnFiles};

/// Pictures that may wait to be written, before those who make more wait, too.
const WAITING: usize = 8;

/// A finished picture whose own files are to be written.
pub(crate) struct Finished {
    pub batch: Arc<Batch>,
    pub image: u64,
    pub picture: Picture,
}

/// Finished pictures whose own files are not yet written. Whoever completes a run's outputs writes what still waits.
#[derive(Default)]
pub(crate) struct Queue {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Finished>,
    /// A writer is at work.
    has_writer: bool,
    /// No more will come.
    closed: bool,
    /// One is being written.
    busy: bool,
    written: Vec<PathBuf>,
}

/// That nobody writes any longer; why is told by [`Writer::finish`].
#[derive(Debug)]
pub(crate) struct Ended;

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until` says so.
    fn wait(&self, until: impl Fn(&Line) -> bool) -> MutexGuard<'_, Line> {
        self.changed.wait_while(self.lock(), |line| !until(line)).unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Line) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Writes the next one once none is being written and `until` says so; none if there is none.
    fn write_next(&self, own: &OwnFiles, until: impl Fn(&Line) -> bool) -> Option<Result<(), Error>> {
        let Finished { batch, image, picture } = {
            let mut line = self.wait(|line| !line.busy && until(line));
            let next = line.waiting.pop_front();
            line.busy = next.is_some();
            next?
        };
        let _idle = Idle(self);
        let mut written = Vec::new();
        let result = own.write(&batch, image, &picture, &mut written);
        self.change(|line| line.written.append(&mut written));
        Some(result)
    }

    /// Writes all that waits; all files of the run so far, and the first thing that failed here.
    pub(crate) fn complete(&self, own: &OwnFiles) -> (Vec<PathBuf>, Option<Error>) {
        let results = std::iter::from_fn(|| self.write_next(own, |_| true));
        let failure = results.fold(None, |first: Option<Error>, result| first.or(result.err()));
        (self.change(|line| std::mem::take(&mut line.written)), failure)
    }
}

/// Also after a panic: somebody may be waiting.
struct Idle<'a>(&'a Queue);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.change(|line| line.busy = false);
    }
}

/// A thread that writes pictures' own files, in the order in which it is given them.
pub(crate) struct Writer<'scope> {
    queue: &'scope Queue,
    /// None once it was waited for.
    thread: Option<ScopedJoinHandle<'scope, Result<(), Error>>>,
}

impl<'scope> Writer<'scope> {
    /// # Errors
    /// [`Error::Thread`] where the system has no thread left; [`Error::SharedByRuns`] where another run has one.
    pub(crate) fn start(scope: &'scope Scope<'scope, '_>, queue: &'scope Queue, own: OwnFiles) -> Result<Self, Error> {
        let had_writer = queue.change(|line| {
            line.closed &= line.has_writer;
            std::mem::replace(&mut line.has_writer, true)
        });
        if had_writer {
            return Err(Error::SharedByRuns);
        }
        let ends = Ends(queue);
        let thread = Builder::new().name("pictures".to_owned()).spawn_scoped(scope, move || {
            let _ends = ends;
            write(queue, &own)
        });
        Ok(Self { queue, thread: Some(thread.map_err(Error::Thread)?) })
    }

    /// Hands over a picture; waits while too many wait.
    ///
    /// # Errors
    /// Where nobody writes any longer.
    pub(crate) fn push(&self, finished: Finished) -> Result<(), Ended> {
        let mut line = self.queue.wait(|line| line.waiting.len() < WAITING || !line.has_writer);
        if !line.has_writer {
            return Err(Ended);
        }
        line.waiting.push_back(finished);
        drop(line);
        self.queue.changed.notify_all();
        Ok(())
    }

    /// Whether nobody writes any longer.
    pub(crate) fn has_ended(&self) -> bool {
        !self.queue.lock().has_writer
    }

    /// Waits until all that was handed over is written.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.queue.change(|line| line.closed = true);
        let written = self.thread.take().map_or(Ok(Ok(())), ScopedJoinHandle::join);
        written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Also where a run ends by a panic: its scope waits for the thread.
impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.queue.change(|line| line.closed = true);
    }
}

/// Says that nobody writes any longer, however that came.
struct Ends<'a>(&'a Queue);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.change(|line| line.has_writer = false);
    }
}

fn write(queue: &Queue, own: &OwnFiles) -> Result<(), Error> {
    let ready = |line: &Line| !line.waiting.is_empty() || line.closed;
    std::iter::from_fn(|| queue.write_next(own, ready)).collect()
}
