use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use dit_diffusion::{
    BatchNoise, ClassConditional, ClassifierFree, ClipX0, Denoiser, DenoiserError, DpmPlusPlus, GuidedChannels,
    LatentShape, NoiseSchedule, Parameterization, SampleSchedule, Sampler, SeededNoise, Timestep, from_fn,
};
use dit_image::{Caption, Picture, grid, write_png};
use dit_model::Dit;
use dit_recipe::{Recipe, SamplesSection};
use dit_vae::{AutoencoderKl, LatentCodec, Latents};
use tch::{Kind, Tensor};

use crate::{Event, Observer, ObserverError, TrainError};

/// Samples that are computed at once.
const BATCH: usize = 16;

/// Where the grid of a step is.
pub(crate) fn grid_path(run: &Path, step: u64) -> PathBuf {
    run.join("samples").join(format!("step-{step:08}.png"))
}

/// Draws `samples/step-NNNNNNNN.png` when pictures are due: the first average's, from the same noise and classes each time, so
/// that the grids of a run show one picture getting better.
#[derive(Debug)]
pub struct SampleGrids {
    run: PathBuf,
    request: SamplesSection,
    schedule: SampleSchedule,
    parameterization: Parameterization,
    vae: AutoencoderKl,
}

impl SampleGrids {
    /// Grids as the recipe's `[samples]` says, decoded by `vae`.
    ///
    /// # Errors
    /// If the schedule has not as many steps as are to be sampled in.
    pub fn new(run: &Path, recipe: &Recipe, vae: AutoencoderKl) -> Result<Self, TrainError> {
        let request = recipe.samples.clone();
        let process = recipe.diffusion.process();
        let schedule = NoiseSchedule::of(&process)?.respaced(&format!("lambda{}", request.steps).parse()?)?;
        let parameterization = Parameterization::of(&process);
        Ok(Self { run: run.to_owned(), request, schedule, parameterization, vae })
    }

    fn draw(&self, step: u64, dit: &Dit) -> Result<(), ObserverError> {
        let _no_grad = tch::no_grad_guard();
        let count = self.request.count;
        let classes = dit.config().num_classes;
        // Classes in turn; where there are more than pictures, equally far apart.
        let class = |image: usize| if classes > count { image * classes / count } else { image % classes };
        let mut pictures = Vec::with_capacity(count);
        for first in (0..count).step_by(BATCH) {
            let images = first..count.min(first + BATCH);
            let labels: Vec<i64> = images.clone().map(|image| class(image) as i64).collect();
            let latents = self.sample(dit, images, &labels)?;
            for latent in latents.split(1, 0) {
                let image = self.vae.decode(&Latents::new(latent))?; // (1, 3, H, W)
                let (height, width) = (image.size()[2] as u32, image.size()[3] as u32);
                pictures.push(Picture::from_chw(&values(&image), width, height)?);
            }
        }
        let columns = classes.min(count).min(10).max((count as f64).sqrt() as usize);
        let sheet = grid(&pictures, NonZeroUsize::new(columns).unwrap_or(NonZeroUsize::MIN))?;
        let caption = Caption::default().with_description(format!("step {step}"));
        let path = grid_path(&self.run, step);
        std::fs::create_dir_all(self.run.join("samples"))?;
        Ok(write_png(&path, &sheet, &caption)?)
    }

    fn sample(&self, dit: &Dit, images: std::ops::Range<usize>, labels: &[i64]) -> Result<Tensor, ObserverError> {
        let config = dit.config();
        let labels = Tensor::from_slice(labels).to_device(dit.device()); // (N,)
        let forward = |x: &Tensor, t: Timestep, labels: &Tensor| {
            let t = Tensor::full(x.size()[0], i64::from(t.0), (Kind::Int64, x.device())); // (N,)
            Ok(dit.forward(x, &t, labels))
        };
        let guided = match config.null_class() {
            Some(null) if self.request.cfg_scale != 1.0 => {
                // Three of four channels, as released models are evaluated.
                let channels = if config.in_channels == 4 { GuidedChannels::First(3) } else { GuidedChannels::All };
                let conditional = ClassConditional::new(forward, &labels, null as i64)?;
                Some(ClassifierFree::new(conditional, self.request.cfg_scale, channels)?)
            }
            _ => None,
        };
        let plain = from_fn(|x: &Tensor, t: Timestep| -> Result<Tensor, DenoiserError> { forward(x, t, &labels) });
        let denoiser: &dyn Denoiser = match &guided {
            Some(guided) => guided,
            None => &plain,
        };
        let source = SeededNoise::new(self.request.seed);
        let images: Vec<u64> = images.map(|image| image as u64).collect();
        let noise = BatchNoise::new(&source, &images);
        let shape = LatentShape {
            channels: config.in_channels as u32,
            height: config.latent.height as u32,
            width: config.latent.width as u32,
        };
        let start = noise.initial(shape, dit.device())?;
        let sampler = Sampler { schedule: &self.schedule, parameterization: self.parameterization, clip: ClipX0::No };
        let walk = &mut |_: dit_diffusion::Progress<'_>| ControlFlow::Continue(());
        Ok(sampler.run(denoiser, &mut DpmPlusPlus::second_order(), noise, &start, walk)?)
    }
}

/// The values of `tensor`, row-major.
fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

impl Observer for SampleGrids {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        if let Event::SamplesDue { step, ema } = event
            && let Err(error) = self.draw(*step, ema)
        {
            tracing::warn!(step, %error, "no pictures this time; training goes on");
        }
        Ok(())
    }
}
