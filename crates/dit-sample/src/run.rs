use std::{ops::ControlFlow, sync::Arc, thread, time::Instant};

use dit_diffusion::{Noise, Progress};
use dit_vae::Latents;
use tch::{Device, Tensor};

use crate::{
    Batch, Error, LateProvenance, Outputs, Pipeline, Plan, SharedOutputs,
    outputs::TRAJECTORY_COLUMNS,
    own_files::OwnFiles,
    writer::{Ended, Finished, Writer},
};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunProgress {
    /// Images finished and decoded; files of the last of them may still be being written.
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
/// Files that hold one picture each are written by a thread of their own, a few behind what is computed. Nothing is waited for while
/// the outputs are locked. Where hashes turn out not to be known the run ends before its next batch; what is computed by then is handed
/// over.
///
/// # Errors
/// The first failure of any part; [`Error::Cancelled`] if `observe` breaks or somebody completes the outputs meanwhile,
/// [`Error::NotOpened`] if they were never opened, [`Error::SharedByRuns`] while another run has them.
pub fn run(
    pipeline: &Pipeline,
    plan: &Plan,
    noise: &dyn Noise,
    outputs: &SharedOutputs,
    observe: &mut dyn FnMut(RunProgress) -> ControlFlow<()>,
) -> Result<Timings, Error> {
    let wanted = |outputs: &mut Outputs| {
        Ok(Some(Wanted {
            sources: outputs.provenance().clone(),
            own: outputs.own_files().clone(),
            pictures: outputs.needs_pictures(),
            trajectory: outputs.needs_trajectory(),
            captions: outputs.captions(),
        }))
    };
    let wanted = outputs.with(wanted)?.ok_or(Error::Cancelled)?;
    let timings = thread::scope(|scope| {
        let writer = Writer::start(scope, outputs.queue(), wanted.own.clone())?;
        let mut walk = Walk { pipeline, plan, noise, outputs, wanted: &wanted, writer: &writer, observe };
        let computed = walk.all();
        let start = Instant::now();
        // What could not be written is why the rest was not computed.
        writer.finish()?;
        computed.map(|timings| Timings { decode: timings.decode + start.elapsed().as_secs_f64(), ..timings })
    })?;
    if wanted.captions {
        let _hashed = wanted.sources.get()?;
    }
    Ok(timings)
}

/// What a run is asked for, which does not change on its way.
struct Wanted {
    sources: LateProvenance,
    own: OwnFiles,
    pictures: bool,
    trajectory: bool,
    /// Whether any file tells the sources' hashes.
    captions: bool,
}

/// A run on its way.
struct Walk<'a> {
    pipeline: &'a Pipeline,
    plan: &'a Plan,
    noise: &'a dyn Noise,
    outputs: &'a SharedOutputs,
    wanted: &'a Wanted,
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
            if !self.outputs.with(|_| Ok(true))? {
                // Somebody has completed them.
                return Err(Error::Cancelled);
            }
            self.wanted.sources.check()?;
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
        let _hashed = self.wanted.sources.get()?;
        self.outputs.with(|outputs| outputs.take_finished(batch))
    }

    /// Walks a batch from noise to latents, and hands over what there is to see of that.
    fn latents(&mut self, batch: &Batch, progress: &mut RunProgress, timings: &mut Timings) -> Result<Latents, Error> {
        let (before, steps) = (progress.steps_done, self.plan.schedule().num_steps());
        let mut trajectory = if self.wanted.trajectory { Trajectory::of(steps) } else { Trajectory::default() };
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
            if self.writer.has_ended() { ControlFlow::Break(()) } else { flow }
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
        if !self.wanted.pictures {
            progress.images_done += batch.classes.len();
            return Ok(());
        }
        let (mut images, batch) = (batch.images(), Arc::new(batch));
        let has_own = self.wanted.own.are_wanted();
        self.pipeline.decode(latents, &mut |picture| {
            let Some(image) = images.next() else { return Ok(()) };
            let own = has_own.then(|| Finished { batch: Arc::clone(&batch), image, picture: picture.clone() });
            let are_open = self.outputs.with(|outputs| outputs.collect(image, picture).map(|()| true))?;
            if !are_open {
                return Err(Error::Cancelled);
            }
            // The writer's own error comes first.
            own.map_or(Ok(()), |finished| self.writer.push(finished).map_err(|Ended| Error::Cancelled))?;
            progress.images_done += 1;
            self.show(*progress)
        })?;
        if has_own { self.wanted.sources.get().map(drop) } else { Ok(()) }
    }

    fn show(&mut self, progress: RunProgress) -> Result<(), Error> {
        match (self.observe)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}
