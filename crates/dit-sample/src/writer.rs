//! Pictures are written beside what computes the next ones: packing a picture's file takes as long as some steps of a GPU, which would stand
//! still meanwhile.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Scope, ScopedJoinHandle},
};

use dit_image::Picture;

use crate::{Batch, Error, LateProvenance, SharedOutputs};

/// Pictures that may wait to be written: what is finished and not yet kept when the process ends is no more than these.
const WAITING: usize = 8;

/// A thread that hands pictures to the outputs, in the order in which it is given them.
pub(crate) struct Writer<'scope> {
    queue: SyncSender<Job>,
    thread: ScopedJoinHandle<'scope, Result<(), Error>>,
}

enum Job {
    Picture {
        batch: Arc<Batch>,
        image: u64,
        picture: Picture,
    },
    /// Dropped when it is reached.
    Mark(SyncSender<()>),
}

impl<'scope> Writer<'scope> {
    /// With `hashes` where each picture's file tells them: they are waited for here.
    pub(crate) fn start(
        scope: &'scope Scope<'scope, '_>,
        outputs: SharedOutputs,
        hashes: Option<LateProvenance>,
    ) -> Self {
        let (queue, jobs) = sync_channel(WAITING);
        Self { queue, thread: scope.spawn(move || write(&jobs, &outputs, hashes.as_ref())) }
    }

    /// Hands over a picture of `batch`; waits while too many wait.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once something could not be written, which [`finish`](Self::finish) tells.
    pub(crate) fn push(&self, batch: &Arc<Batch>, image: u64, picture: Picture) -> Result<(), Error> {
        let batch = Arc::clone(batch);
        self.queue.send(Job::Picture { batch, image, picture }).map_err(|_| Error::Cancelled)
    }

    /// Waits until all that was handed over is written.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn catch_up(&self) -> Result<(), Error> {
        let (mark, reached) = sync_channel(0);
        self.queue.send(Job::Mark(mark)).map_err(|_| Error::Cancelled)?;
        // Nothing is ever sent: it is dropped, whether reached or left behind.
        let _dropped = reached.recv();
        Ok(())
    }

    /// Waits until all that was handed over is written.
    ///
    /// # Errors
    /// What could not be written, or that hashes are not known.
    pub(crate) fn finish(self) -> Result<(), Error> {
        drop(self.queue);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Where hashes are not known, pictures are written all the same, without a recipe.
fn write(jobs: &Receiver<Job>, outputs: &SharedOutputs, hashes: Option<&LateProvenance>) -> Result<(), Error> {
    let mut told = Ok(());
    for job in jobs {
        match job {
            Job::Picture { batch, image, picture } => {
                if let (Some(hashes), true) = (hashes, told.is_ok()) {
                    told = hashes.get().map(drop);
                }
                outputs.with(|outputs| outputs.push_picture(&batch, image, picture))?;
            }
            Job::Mark(mark) => drop(mark),
        }
    }
    told
}
