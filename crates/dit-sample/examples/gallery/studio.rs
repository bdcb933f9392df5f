//! The model, and pictures of it.

use std::{num::NonZeroUsize, ops::ControlFlow, path::Path};

use dit_classifier::Classifier;
use dit_diffusion::SeededNoise;
use dit_image::{Caption, Picture, grid, write_png};
use dit_model::Dit;
use dit_sample::{Pipeline, Plan, SamplerKind, Settings, Spacing};
use dit_vae::AutoencoderKl;
use dit_weights::{Checkpoint, OpenOptions, VaeCheckpoint};
use tch::{Device, Kind};

use crate::Result;

/// The demo model in a pipeline, its classifier of noised latents with it.
pub struct Studio {
    pipeline: Pipeline,
}

impl Studio {
    pub fn open(weights: &Path) -> Result<Self> {
        Ok(Self { pipeline: assemble(weights)? })
    }

    /// The same, starting from a picture.
    pub fn starting_from(weights: &Path, picture: &Picture) -> Result<Self> {
        let pipeline = assemble(weights)?;
        let latents = pipeline.encode(picture)?;
        Ok(Self { pipeline: pipeline.with_init(latents)? })
    }

    /// One picture for each class.
    pub fn pictures(&self, settings: Settings, classes: &[u32]) -> Result<Vec<Picture>> {
        let noise = SeededNoise::new(settings.seed);
        let plan = Plan::new(self.pipeline.dit().config(), settings, 0, classes.to_vec(), 50)?;
        let mut pictures = Vec::new();
        for batch in plan.batches() {
            let latents = self.pipeline.sample(&plan, &batch, &noise, &mut |_| ControlFlow::Continue(()))?;
            self.pipeline.decode(&latents, &mut |picture| {
                pictures.push(picture);
                Ok(())
            })?;
        }
        Ok(pictures)
    }
}

fn assemble(weights: &Path) -> Result<Pipeline> {
    let options = OpenOptions::default();
    let dit =
        Dit::load(&Checkpoint::open(weights.join("dit-fashion.safetensors"), &options)?, Device::Cpu, Kind::Float)?;
    let vae = AutoencoderKl::load(&VaeCheckpoint::open(weights.join("vae-fashion"))?, Device::Cpu, Kind::Float)?;
    let (classifier, _) = Classifier::load(&weights.join("classifier-fashion.safetensors"), Device::Cpu)?;
    Ok(Pipeline::new(dit, Some(vae))?.with_classifier(classifier)?)
}

/// Twenty steps of the recommended solver, from one seed, guidance 3.
pub fn quick() -> Settings {
    Settings {
        sampler: SamplerKind::DpmPlusPlus2M,
        steps: Spacing::UniformLambda(20),
        cfg_scale: 3.0,
        ..Settings::default()
    }
}

/// Rows of `columns` pictures.
pub fn write_rows(path: &Path, pictures: &[Picture], columns: usize, what: &str) -> Result<()> {
    let columns = NonZeroUsize::new(columns).ok_or("no columns")?;
    write_png(path, &grid(pictures, columns)?, &Caption::default().with_description(what))?;
    println!("{}: {what}", path.display());
    Ok(())
}
