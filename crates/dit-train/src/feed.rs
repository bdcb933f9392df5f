//! Everything that a step needs but the network, made ready in threads that never touch libtorch.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use dit_data::shard::{LatentBatches, Position};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::Device;

use crate::{
    TrainError,
    random::{self, Moment, Purpose},
    timesteps::Lot,
};

/// Batches that are ready before they are asked for.
const AHEAD: usize = 2;
/// Threads that draw for a GPU, which small networks would else leave waiting. On a CPU one keeps up, and more would take the
/// cores that the network computes on.
const THREADS_FOR_A_GPU: usize = 8;

/// Latents and the noise that they are to be given.
#[derive(Debug)]
pub(crate) struct RawBatch {
    /// Raw latents (N, C, h, w), row-major.
    pub latents: Vec<f32>,
    /// ε, of the same extent.
    pub noise: Vec<f32>,
    /// N, C, h, w.
    pub shape: [usize; 4],
    /// Classes, some replaced by the null class.
    pub labels: Vec<i64>,
    /// Which records.
    pub records: Vec<u64>,
}

/// A step's data and random numbers.
#[derive(Debug)]
pub(crate) struct StepData {
    pub batch: RawBatch,
    /// What timesteps are drawn from.
    pub lots: Vec<Lot>,
    /// Where the data are after this step.
    pub after: Position,
}

/// What becomes of labels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Labels {
    /// Replaced by the null class with this probability.
    Dropped { probability: f64, null_class: i64 },
    /// As they are.
    Kept,
    /// All of the only class.
    Ignored,
}

/// The thread, and what comes from it.
#[derive(Debug)]
pub(crate) struct Feed {
    batches: Option<Receiver<Result<StepData, TrainError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Steps from the one at `first` on.
    pub(crate) fn new(
        mut batches: LatentBatches,
        labels: Labels,
        first: Moment,
        device: Device,
    ) -> Result<Self, TrainError> {
        let (sender, receiver) = sync_channel(AHEAD);
        let pool = pool(device)?;
        let work = move || pool.install(|| run(&mut batches, labels, first, &sender));
        let thread = thread::Builder::new().name("latents".to_owned()).spawn(work);
        let thread = thread.map_err(|source| TrainError::Thread { source })?;
        Ok(Self { batches: Some(receiver), thread: Some(thread) })
    }

    pub(crate) fn next(&mut self) -> Result<StepData, TrainError> {
        let batches = self.batches.as_ref().ok_or(TrainError::FeedEnded)?;
        batches.recv().map_err(|_| TrainError::FeedEnded)?
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Without a receiver the thread ends at its next batch.
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads latents panicked");
        }
    }
}

/// Those who draw.
fn pool(device: Device) -> Result<ThreadPool, TrainError> {
    let threads = if device == Device::Cpu { 1 } else { rayon::current_num_threads().min(THREADS_FOR_A_GPU) };
    let built = ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("latents-{number}")).build();
    built.map_err(|error| TrainError::Thread { source: io::Error::other(error) })
}

fn run(batches: &mut LatentBatches, labels: Labels, first: Moment, sender: &SyncSender<Result<StepData, TrainError>>) {
    let mut moment = first;
    loop {
        let data = prepare(batches, labels, moment);
        let ended = data.is_err();
        if sender.send(data).is_err() || ended {
            return;
        }
        moment.step += 1;
    }
}

fn prepare(batches: &mut LatentBatches, labels: Labels, moment: Moment) -> Result<StepData, TrainError> {
    let batch = batches.next_batch()?;
    let noise = random::normals(&random::generator(moment, Purpose::Noise), batch.latents.len());
    let mut rng = random::generator(moment, Purpose::Timesteps);
    let mut lot = || Lot { unit: random::unit(&mut rng), normal: random::normal_pair(&mut rng)[0] };
    let lots = batch.labels.iter().map(|_| lot()).collect();
    let batch = RawBatch {
        noise,
        shape: batch.shape,
        labels: labels.apply(batch.labels, moment),
        latents: batch.latents,
        records: batch.records,
    };
    Ok(StepData { batch, lots, after: batches.position() })
}

impl Labels {
    pub(crate) fn apply(self, labels: Vec<i64>, moment: Moment) -> Vec<i64> {
        match self {
            Self::Kept => labels,
            Self::Ignored => vec![0; labels.len()],
            Self::Dropped { probability, null_class } => {
                let mut rng = random::generator(moment, Purpose::LabelDropout);
                let mut drop_or = |label| if random::unit(&mut rng) < probability { null_class } else { label };
                labels.into_iter().map(&mut drop_or).collect()
            }
        }
    }
}
