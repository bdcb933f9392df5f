use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use dit_data::{
    CropRecipe, Rgb,
    shard::{EncodedBatch, FolderWriter, Journal, Journals, Manifest, Settings, ShardBuffer, ShardPlan, Skipped},
};
use dit_vae::LatentCodec;

use crate::{Error, PictureError, Records, encode::Encoder, room::warn_if_short, window::Window};

/// Why a picture was skipped is recorded in at most so many characters.
const LONGEST_REASON: usize = 500;

/// How a run goes about its work. Nothing of it shows in the result.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// Threads that decode and crop.
    pub workers: usize,
    /// The fraction of all records that may be skipped.
    pub max_skipped: f64,
}

impl Default for RunOptions {
    /// A thread for each core; one picture in a thousand.
    fn default() -> Self {
        Self { workers: thread::available_parallelism().map_or(1, usize::from), max_skipped: 0.001 }
    }
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Records in all.
    pub total: u64,
    /// Records behind, those of earlier runs and skipped ones counted.
    pub done: u64,
    /// Of those, records of earlier runs.
    pub resumed: u64,
    /// Records skipped, in earlier runs too.
    pub skipped: u64,
    /// Time since this run began.
    pub elapsed: Duration,
    /// The part of that time for which decoding threads were at work, 0 to 1.
    pub decode_busy: f64,
    /// The part of it for which the codec was.
    pub encode_busy: f64,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The finished folder's manifest.
    pub manifest: Manifest,
    /// The last progress.
    pub progress: Progress,
}

/// Makes every shard that is missing from the writer's folder, and completes the folder.
///
/// `records` are those of the writer's settings, `codec` is the one that they name, and libtorch has as many threads as they
/// say: this is what makes the result a function of the settings.
///
/// # Errors
/// [`Error::TooManySkipped`], [`Error::DiskFull`], [`Error::Data`] where the source or the folder fails, [`Error::Vae`].
/// What is finished is kept; another run continues.
pub fn run(
    records: &dyn Records,
    codec: &dyn LatentCodec,
    writer: FolderWriter,
    options: &RunOptions,
    observe: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    let settings = writer.manifest().settings.clone();
    let jobs = open_jobs(&writer)?;
    let pending = Pending::of(&jobs);
    let layout = writer.journals().layout();
    // The shard in work is there twice for a moment: as a journal, whose numbers take no more room, and as a file.
    let twice = pending.total + settings.shard_size.min(pending.total as usize) as u64;
    warn_if_short(writer.folder(), twice.saturating_mul(layout.record_bytes() as u64));
    let workers = options.workers.max(1);
    let window = Window::new(2 * settings.encoding.batch_size + 2 * workers, pending.total);
    let decoding = AtomicU64::new(0);
    let mut run = Run {
        records,
        journals: writer.journals(),
        encoder: Encoder::new(codec, writer.journals().layout(), settings.image_size),
        allowed: allowed(options.max_skipped, settings.source.records),
        skipped: writer.skipped().to_vec(),
        meter: Meter::new(&settings, &pending, &decoding, workers),
        window: &window,
        list: writer.folder().join("skipped.jsonl"),
        settings: &settings,
    };
    let (result, writer, committed) = thread::scope(|scope| {
        let (send, receive) = sync_channel::<ShardBuffer>(1);
        let committer = scope.spawn(move || {
            let mut writer = writer;
            let result = receive.iter().try_for_each(|shard| writer.commit(shard));
            (writer, result)
        });
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(place) = window.claim() {
                    let start = Instant::now();
                    let picture = prepare(records, pending.record(place), settings.crop, settings.image_size);
                    decoding.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    window.put(place, picture);
                }
            });
        }
        let closing = window.close_on_drop();
        let result = run.encode_all(jobs, &send, observe);
        drop(send);
        drop(closing);
        match committer.join() {
            Ok((writer, committed)) => (result, writer, committed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    // The writer's failure is why the encoder stopped.
    committed?;
    if let Err(error) = result {
        if let Error::TooManySkipped { skipped, .. } = &error {
            let finished = writer.skipped();
            let unfinished: Vec<Skipped> = skipped.iter().filter(|one| !finished.contains(one)).cloned().collect();
            writer.write_skipped(&unfinished)?;
        }
        return Err(error);
    }
    let progress = run.meter.progress(run.skipped.len());
    Ok(Report { manifest: writer.finish()?, progress })
}

/// Records that may be skipped.
fn allowed(fraction: f64, records: u64) -> u64 {
    (fraction.clamp(0.0, 1.0) * records as f64).floor() as u64
}

/// A shard to be made, and how far it is.
struct Job {
    plan: ShardPlan,
    buffer: ShardBuffer,
    /// Opened already where an earlier run left it.
    journal: Option<Journal>,
}

fn open_jobs(writer: &FolderWriter) -> Result<Vec<Job>, Error> {
    let journals = writer.journals();
    let mut jobs = Vec::new();
    for plan in writer.missing() {
        let mut job = Job { plan, buffer: ShardBuffer::new(plan.index, plan.first, journals.layout()), journal: None };
        if journals.exists(plan.index) {
            let (journal, batches) = journals.open(plan.index, plan.first, plan.covered)?;
            batches.into_iter().for_each(|batch| job.buffer.push(batch));
            job.journal = Some(journal);
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// The records that are still to be decoded, as runs of consecutive ones.
struct Pending {
    /// Place of a run's first record among the pending, and that record.
    runs: Vec<(u64, u64)>,
    total: u64,
}

impl Pending {
    fn of(jobs: &[Job]) -> Self {
        let mut pending = Self { runs: Vec::new(), total: 0 };
        for job in jobs {
            let (first, end) = (job.buffer.next_record(), job.plan.first + job.plan.covered);
            pending.runs.push((pending.total, first));
            pending.total += end.saturating_sub(first);
        }
        pending
    }

    /// The record at a place below `total`.
    fn record(&self, place: u64) -> u64 {
        let run = self.runs.partition_point(|&(start, _)| start <= place);
        self.runs[..run].last().map_or(place, |&(start, first)| first + (place - start))
    }
}

/// A picture as the codec takes it, or why there is none.
type Prepared = Result<Rgb, PictureError>;

fn prepare(records: &dyn Records, index: u64, crop: CropRecipe, size: usize) -> Prepared {
    let prepare = || {
        let picture = records.picture(index)?;
        picture.map(|picture| crop.apply(picture, size)).map_err(|error| PictureError::Bad(error.to_string()))
    };
    // A fault in a decoder must not stop the run, nor leave the encoder waiting.
    catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|_| Err(PictureError::Bad("the decoder failed".to_owned())))
}

/// What the encoding thread works with.
struct Run<'a> {
    records: &'a dyn Records,
    encoder: Encoder<'a>,
    journals: Journals,
    settings: &'a Settings,
    window: &'a Window<Prepared>,
    allowed: u64,
    skipped: Vec<Skipped>,
    list: PathBuf,
    meter: Meter<'a>,
}

impl Run<'_> {
    fn encode_all(
        &mut self,
        jobs: Vec<Job>,
        finished: &SyncSender<ShardBuffer>,
        observe: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        for job in &jobs {
            self.skipped.extend_from_slice(job.buffer.skipped());
        }
        self.check_skipped()?;
        observe(self.meter.progress(self.skipped.len()));
        for Job { plan, mut buffer, journal } in jobs {
            let end = plan.first + plan.covered;
            let mut journal = match journal {
                Some(journal) => journal,
                None => self.journals.open(plan.index, plan.first, plan.covered)?.0,
            };
            while buffer.next_record() < end {
                let first = buffer.next_record();
                let batch = self.encode_batch(first, end)?;
                journal.append(&batch)?;
                self.skipped.extend_from_slice(batch.skipped());
                self.meter.done += batch.covered();
                buffer.push(batch);
                self.check_skipped()?;
                observe(self.meter.progress(self.skipped.len()));
            }
            if finished.send(buffer).is_err() {
                return Ok(()); // the writer has failed, and says why
            }
        }
        Ok(())
    }

    /// The window of records from `first` on, in a shard that ends before `end`.
    fn encode_batch(&mut self, first: u64, end: u64) -> Result<EncodedBatch, Error> {
        let size = self.settings.encoding.batch_size as u64;
        let (mut keys, mut labels, mut skipped, mut pictures) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for record in first..end.min(first + size) {
            let key = self.records.key(record);
            match self.window.take() {
                Ok(picture) => {
                    keys.push(key);
                    labels.push(self.records.label(record));
                    pictures.push(Some(picture));
                }
                Err(PictureError::Bad(reason)) => {
                    let reason = reason.chars().take(LONGEST_REASON).collect();
                    skipped.push(Skipped { record, key, reason });
                    pictures.push(None);
                }
                Err(PictureError::Source(error)) => return Err(error.into()),
            }
        }
        let layout = self.journals.layout();
        let start = Instant::now();
        let mut moments = if keys.is_empty() { Vec::new() } else { self.encoder.encode(&pictures)? };
        self.meter.encoding += start.elapsed();
        if !keys.is_empty() && !skipped.is_empty() {
            let kept =
                moments.chunks_exact(layout.record_len()).zip(&pictures).filter(|(_, picture)| picture.is_some());
            moments = kept.flat_map(|(values, _)| values).copied().collect();
        }
        Ok(EncodedBatch::new(&layout, first, keys, labels, skipped, &moments)?)
    }

    fn check_skipped(&self) -> Result<(), Error> {
        if self.skipped.len() as u64 <= self.allowed {
            return Ok(());
        }
        let mut skipped = self.skipped.clone();
        skipped.sort_by_key(|one| one.record);
        let total = self.settings.source.records;
        Err(Error::TooManySkipped { skipped, allowed: self.allowed, total, list: self.list.clone() })
    }
}

/// Where the time goes.
struct Meter<'a> {
    start: Instant,
    total: u64,
    done: u64,
    resumed: u64,
    /// Nanoseconds of all decoding threads.
    decoding: &'a AtomicU64,
    workers: usize,
    encoding: Duration,
}

impl<'a> Meter<'a> {
    fn new(settings: &Settings, pending: &Pending, decoding: &'a AtomicU64, workers: usize) -> Self {
        let total = settings.source.records;
        let resumed = total - pending.total;
        Self { start: Instant::now(), total, done: resumed, resumed, decoding, workers, encoding: Duration::ZERO }
    }

    fn progress(&self, skipped: usize) -> Progress {
        let elapsed = self.start.elapsed();
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let decoding = Duration::from_nanos(self.decoding.load(Ordering::Relaxed)).as_secs_f64();
        Progress {
            total: self.total,
            done: self.done,
            resumed: self.resumed,
            skipped: skipped as u64,
            elapsed,
            decode_busy: (decoding / (seconds * self.workers as f64)).min(1.0),
            encode_busy: (self.encoding.as_secs_f64() / seconds).min(1.0),
        }
    }
}
