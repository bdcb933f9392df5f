use std::{ops::ControlFlow, time::Instant};

use dit_diffusion::{Noise, Progress};
use dit_vae::Latents;
use tch::Tensor;

use crate::{Error, LateProvenance, Pipeline, Plan, SharedOutputs, outputs::TRAJECTORY_COLUMNS};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunProgress {
    /// Images finished, decoded and handed to the outputs.
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
    /// Each step of each batch.
    pub steps: Vec<f64>,
    /// Decoding and writing, in all.
    pub decode: f64,
}

impl Timings {
    /// The median step.
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
/// Nothing is waited for while the outputs are locked. Where hashes turn out not to be known the run ends before its next batch;
/// what is computed by then is handed over.
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
    let mut timings = Timings::default();
    let steps_per_batch = plan.schedule().num_steps();
    let batches = plan.batches();
    let mut progress = RunProgress {
        images_done: 0,
        images_found: 0,
        images: plan.classes().len(),
        steps_done: 0,
        steps: steps_per_batch * batches.len(),
    };
    let sources = outputs.with(|outputs| Ok(Some(outputs.provenance().clone())))?;
    let hashed = || sources.as_ref().map_or(Ok(()), |sources| sources.get().map(drop));
    let captions_each = outputs.with(|outputs| Ok(outputs.captions_each()))?;
    for (number, batch) in batches.enumerate() {
        sources.as_ref().map_or(Ok(()), LateProvenance::check)?;
        if outputs.with(|outputs| Ok(outputs.may_have(&batch)))? {
            hashed()?;
        }
        if outputs.with(|outputs| outputs.take_finished(&batch))? {
            progress.images_done += batch.classes.len();
            progress.images_found += batch.classes.len();
            progress.steps_done = (number + 1) * steps_per_batch;
            if observe(progress).is_break() {
                return Err(Error::Cancelled);
            }
            continue;
        }
        let mut trajectory = match outputs.with(|outputs| Ok(outputs.needs_trajectory()))? {
            true => Trajectory::of(steps_per_batch),
            false => Trajectory::default(),
        };
        let mut last = Instant::now();
        let latents = pipeline.sample(plan, &batch, noise, &mut |walk| {
            if walk.done > 0 {
                timings.steps.push(last.elapsed().as_secs_f64());
            }
            trajectory.see(&walk);
            progress.steps_done = number * steps_per_batch + walk.done;
            let flow = observe(progress);
            last = Instant::now();
            flow
        })?;
        let images = batch.images();
        tracing::debug!(?images, "latents are done");
        let start = Instant::now();
        outputs.with(|outputs| outputs.push_latents(&latents))?;
        trajectory.hand_over(pipeline, outputs)?;
        if outputs.with(|outputs| Ok(outputs.needs_pictures()))? {
            let mut images = batch.images();
            let mut told = Ok(());
            pipeline.decode(&latents, &mut |picture| {
                let Some(image) = images.next() else { return Ok(()) };
                if captions_each && told.is_ok() {
                    told = hashed();
                }
                outputs.with(|outputs| outputs.push_picture(&batch, image, picture))?;
                progress.images_done += 1;
                match observe(progress) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::Cancelled),
                }
            })?;
            told?;
        } else {
            progress.images_done += batch.classes.len();
        }
        timings.decode += start.elapsed().as_secs_f64();
        tracing::debug!(images = progress.images_done, seconds = start.elapsed().as_secs_f64(), "pictures are written");
    }
    if outputs.with(|outputs| Ok(outputs.captions()))? {
        hashed()?;
    }
    Ok(timings)
}
