use std::{ops::ControlFlow, sync::Arc, thread, time::Instant};

use dit_diffusion::{Noise, Progress};
use dit_vae::Latents;
use tch::{Device, Tensor};

use crate::{
    Batch, Error, LateProvenance, Pipeline, Plan, SharedOutputs,
    outputs::TRAJECTORY_COLUMNS,
    writer::{Abandoned, Finished, Writer},
};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunProgress {
    /// Images finished and decoded; the last of them may still be being written.
    pub images_done: usize,
    /// Those of them that an earlier run had finished.
    pub images_found: usize,
    /// Images in all.
    pub images: usize,
    /// Steps finished, counted over all batches.
    pub steps_done: usize,
    /// Steps in all.
    pub steps: usize,
}

/// How long the parts of a run took, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// Each step of each batch; on a GPU, which is given several at once, the mean step of each batch.
    pub steps: Vec<f64>,
    /// Decoding and writing, in all, as far as it was waited for.
    pub decode: f64,
}

impl Timings {
    /// The median of [`steps`](Self::steps).
    pub fn median_step(&self) -> Option<f64> {
        let mut sorted = self.steps.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }
}

/// The estimates of the clean latents on the way, at a few evenly chosen steps and at the last.
#[derive(Default)]
struct Trajectory {
    /// Numbers of finished steps, rising.
    wanted: Vec<usize>,
    /// (N, C, H, W) each.
    seen: Vec<Tensor>,
}

impl Trajectory {
    fn of(steps: usize) -> Self {
        let columns = TRAJECTORY_COLUMNS.min(steps);
        let wanted = (1..=columns).map(|column| (column * steps).div_ceil(columns)).collect();
        Self { wanted, seen: Vec::new() }
    }

    fn see(&mut self, walk: &Progress<'_>) {
        if let (true, Some(x0)) = (self.wanted.contains(&walk.done), walk.x0) {
            // The last estimate is not quite what a noisy solver ends in.
            self.seen.push(if walk.done == walk.total { walk.x.copy() } else { x0.copy() });
        }
    }

    /// Decodes them, if there are any.
    fn hand_over(self, pipeline: &Pipeline, outputs: &SharedOutputs) -> Result<(), Error> {
        let mut columns = Vec::with_capacity(self.seen.len());
        for seen in self.seen {
            let mut pictures = Vec::new();
            pipeline.decode(&Latents::new(seen), &mut |picture| {
                pictures.push(picture);
                Ok(())
            })?;
            columns.push(pictures);
        }
        outputs.with(|outputs| {
            outputs.push_trajectory(&columns);
            Ok(())
        })
    }
}

/// Computes every batch of `plan` and hands latents and pictures to `outputs`, which the caller completes: with
/// [`SharedOutputs::finish`], or, from another thread that was told to stop, with [`SharedOutputs::finish_at_exit`].
///
/// Pictures are written by a thread of their own, a few behind what is computed; whoever completes the outputs meanwhile writes those that
/// are finished. Nothing is waited for while the outputs are locked.
/// Where hashes turn out not to be known the run ends before its next batch; what is computed by then is handed over.
///
/// # Errors
/// The first failure of any part; [`Error::Cancelled`] if `observe` breaks, [`Error::NotOpened`] if `outputs` were never opened.
pub fn run(
    pipeline: &Pipeline,
    plan: &Plan,
    noise: &dyn Noise,
    outputs: &SharedOutputs,
    observe: &mut dyn FnMut(RunProgress) -> ControlFlow<()>,
) -> Result<Timings, Error> {
    let sources = outputs.with(|outputs| Ok(Some(outputs.provenance().clone())))?;
    let captions_each = outputs.with(|outputs| Ok(outputs.captions_each()))?;
    let timings = thread::scope(|scope| {
        let told_each = sources.as_ref().filter(|_| captions_each);
        let writer = Writer::start(scope, outputs, told_each)?;
        let sources = sources.as_ref();
        let mut walk = Walk { pipeline, plan, noise, outputs, sources, told_each, writer: &writer, observe };
        let computed = walk.all();
        let start = Instant::now();
        // What could not be written is why the rest was not computed.
        writer.finish()?;
        computed.map(|timings| Timings { decode: timings.decode + start.elapsed().as_secs_f64(), ..timings })
    })?;
    if let (Some(sources), true) = (&sources, outputs.with(|outputs| Ok(outputs.captions()))?) {
        let _hashed = sources.get()?;
    }
    Ok(timings)
}

/// The writer's own error comes first.
fn stopped(_: Abandoned) -> Error {
    Error::Cancelled
}

/// A run on its way.
struct Walk<'a> {
    pipeline: &'a Pipeline,
    plan: &'a Plan,
    noise: &'a dyn Noise,
    outputs: &'a SharedOutputs,
    sources: Option<&'a LateProvenance>,
    /// The same where every picture's file tells it.
    told_each: Option<&'a LateProvenance>,
    writer: &'a Writer<'a>,
    observe: &'a mut dyn FnMut(RunProgress) -> ControlFlow<()>,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<Timings, Error> {
        let mut timings = Timings::default();
        let steps_per_batch = self.plan.schedule().num_steps();
        let batches = self.plan.batches();
        let mut progress = RunProgress {
            images_done: 0,
            images_found: 0,
            images: self.plan.classes().len(),
            steps_done: 0,
            steps: steps_per_batch * batches.len(),
        };
        for (number, batch) in batches.enumerate() {
            self.go_on()?;
            self.sources.map_or(Ok(()), LateProvenance::check)?;
            if self.was_finished(&batch)? {
                progress.images_done += batch.classes.len();
                progress.images_found += batch.classes.len();
                progress.steps_done = (number + 1) * steps_per_batch;
                self.show(progress)?;
                continue;
            }
            let latents = self.latents(&batch, &mut progress, &mut timings)?;
            let start = Instant::now();
            self.pictures(batch, &latents, &mut progress)?;
            let seconds = start.elapsed().as_secs_f64();
            timings.decode += seconds;
            tracing::debug!(images = progress.images_done, seconds, "pictures are decoded");
        }
        Ok(timings)
    }

    /// Whether an earlier run has finished these pictures; they are taken over then.
    fn was_finished(&self, batch: &Batch) -> Result<bool, Error> {
        if !self.outputs.with(|outputs| Ok(outputs.may_have(batch)))? {
            return Ok(false);
        }
        if let Some(sources) = self.sources {
            let _hashed = sources.get()?;
        }
        self.writer.catch_up().map_err(stopped)?;
        self.outputs.with(|outputs| outputs.take_finished(batch))
    }

    /// Walks a batch from noise to latents, and hands over what there is to see of that.
    fn latents(&mut self, batch: &Batch, progress: &mut RunProgress, timings: &mut Timings) -> Result<Latents, Error> {
        let (before, steps) = (progress.steps_done, self.plan.schedule().num_steps());
        let mut trajectory = match self.outputs.with(|outputs| Ok(outputs.needs_trajectory()))? {
            true => Trajectory::of(steps),
            false => Trajectory::default(),
        };
        let mut begun = Instant::now();
        let mut step = begun;
        let is_timed = self.pipeline.dit().device() == Device::Cpu;
        let latents = self.pipeline.sample(self.plan, batch, self.noise, &mut |walk| {
            match walk.done {
                0 => begun = Instant::now(),
                _ if is_timed => timings.steps.push(step.elapsed().as_secs_f64()),
                _ => {}
            }
            trajectory.see(&walk);
            progress.steps_done = before + walk.done;
            let flow = (self.observe)(*progress);
            step = Instant::now();
            if self.writer.is_abandoned() { ControlFlow::Break(()) } else { flow }
        })?;
        if !is_timed {
            timings.steps.push(begun.elapsed().as_secs_f64() / steps as f64);
        }
        tracing::debug!(images = ?batch.images(), "latents are done");
        let start = Instant::now();
        self.outputs.with(|outputs| outputs.push_latents(&latents))?;
        trajectory.hand_over(self.pipeline, self.outputs)?;
        timings.decode += start.elapsed().as_secs_f64();
        Ok(latents)
    }

    /// Decodes a batch, if anything shows it.
    fn pictures(&mut self, batch: Batch, latents: &Latents, progress: &mut RunProgress) -> Result<(), Error> {
        if !self.outputs.with(|outputs| Ok(outputs.needs_pictures()))? {
            progress.images_done += batch.classes.len();
            return Ok(());
        }
        let (mut images, batch) = (batch.images(), Arc::new(batch));
        self.pipeline.decode(latents, &mut |picture| {
            let Some(image) = images.next() else { return Ok(()) };
            self.writer.push(Finished { batch: Arc::clone(&batch), image, picture }).map_err(stopped)?;
            progress.images_done += 1;
            self.show(*progress)
        })?;
        self.told_each.map_or(Ok(()), |sources| sources.get().map(drop))
    }

    /// Whether there is a use in computing more.
    fn go_on(&self) -> Result<(), Error> {
        if self.writer.is_abandoned() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn show(&mut self, progress: RunProgress) -> Result<(), Error> {
        match (self.observe)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}
