use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use dit_image::{Caption, grid, write_png};
use dit_model::Dit;
use dit_recipe::Recipe;
use dit_vae::AutoencoderKl;

use super::{AverageSampler, leftovers::remove_leftovers};
use crate::{Event, Observer, ObserverError, StopRequest, TrainError, attempt::attempt};

/// The grids' folder in a run's.
const FOLDER: &str = "samples";
/// Samples that are computed at once.
const BATCH: usize = 16;

/// Where the grid of a step is.
pub(crate) fn grid_path(run: &Path, step: u64) -> PathBuf {
    run.join(FOLDER).join(format!("step-{step:08}.png"))
}

/// Draws `samples/step-NNNNNNNN.png` when pictures are due: the first average's, from the same noise and classes each time, so
/// that the grids of a run show one picture getting better.
#[derive(Debug)]
pub struct SampleGrids {
    run: PathBuf,
    count: usize,
    sampler: AverageSampler,
}

impl SampleGrids {
    /// Grids as the recipe's `[samples]` says, decoded by `vae`.
    ///
    /// # Errors
    /// If the schedule has not as many steps as are to be sampled in.
    pub fn new(run: &Path, recipe: &Recipe, vae: Rc<AutoencoderKl>) -> Result<Self, TrainError> {
        let asked = &recipe.samples;
        let sampler = AverageSampler::new(recipe, asked.steps, asked.cfg_scale, asked.seed, vae)?;
        Ok(Self { run: run.to_owned(), count: asked.count, sampler })
    }

    /// Draws and writes the grid, unless `stop` is requested before it is finished.
    fn draw(&self, step: u64, dit: &Dit, stop: &StopRequest) -> Result<(), ObserverError> {
        let count = self.count;
        let mut pictures = Vec::with_capacity(count);
        for first in (0..count).step_by(BATCH) {
            match self.sampler.draw(dit, first..count.min(first + BATCH), count, stop)? {
                Some(more) => pictures.extend(more),
                None => return Ok(()),
            }
        }
        let classes = dit.config().num_classes;
        let columns = classes.min(count).min(10).max((count as f64).sqrt() as usize);
        let sheet = grid(&pictures, NonZeroUsize::new(columns).unwrap_or(NonZeroUsize::MIN))?;
        let caption = Caption::default().with_description(format!("step {step}"));
        let path = grid_path(&self.run, step);
        std::fs::create_dir_all(self.run.join(FOLDER))?;
        Ok(write_png(&path, &sheet, &caption)?)
    }
}

impl Observer for SampleGrids {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Started { .. } => remove_leftovers(&self.run.join(FOLDER)),
            Event::SamplesDue { step, ema, stop } => {
                if let Err(error) = attempt(|| self.draw(*step, ema, stop)) {
                    tracing::warn!(step, %error, "no pictures this time; training goes on");
                }
            }
            _ => {}
        }
        Ok(())
    }
}
