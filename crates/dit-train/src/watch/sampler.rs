use std::{ops::ControlFlow, ops::Range, rc::Rc};

use dit_diffusion::{
    BatchNoise, ClassConditional, ClassifierFree, ClipX0, Denoiser, DenoiserError, DpmPlusPlus, Error, GuidedChannels,
    LatentShape, NoiseSchedule, Parameterization, SampleSchedule, Sampler, SeededNoise, Timestep, from_fn,
};
use dit_image::Picture;
use dit_model::Dit;
use dit_recipe::Recipe;
use dit_vae::{AutoencoderKl, Decoded, Latents, decode_each};
use tch::{Kind, Tensor};

use crate::{ObserverError, StopRequest, TrainError};

/// Draws pictures of a network in training by DPM-Solver++ 2M: picture k of a seed has the same noise and class at every step of
/// the run, whatever it is drawn together with.
#[derive(Debug)]
pub struct AverageSampler {
    schedule: SampleSchedule,
    parameterization: Parameterization,
    cfg_scale: f64,
    seed: u64,
    vae: Rc<AutoencoderKl>,
}

impl AverageSampler {
    /// Pictures in `steps` solver steps of the recipe's diffusion process, guided by `cfg_scale` (1 is none), decoded by `vae`.
    ///
    /// # Errors
    /// If the schedule has not as many steps as are to be sampled in.
    pub fn new(
        recipe: &Recipe,
        steps: usize,
        cfg_scale: f64,
        seed: u64,
        vae: Rc<AutoencoderKl>,
    ) -> Result<Self, TrainError> {
        let process = recipe.diffusion.process();
        let schedule = NoiseSchedule::of(&process)?.respaced(&format!("lambda{steps}").parse()?)?;
        Ok(Self { schedule, parameterization: Parameterization::of(&process), cfg_scale, seed, vae })
    }

    /// The pictures `images` of `count`, whose classes are in turn; where there are more than pictures, equally far apart. Nothing
    /// once `stop` is requested, which is asked for between solver steps and between decoded pictures.
    ///
    /// # Errors
    /// What sampling and decoding meet.
    pub fn draw(
        &self,
        dit: &Dit,
        images: Range<usize>,
        count: usize,
        stop: &StopRequest,
    ) -> Result<Option<Vec<Picture>>, ObserverError> {
        let _no_grad = tch::no_grad_guard();
        let classes = dit.config().num_classes;
        let class = |image: usize| if classes > count { image * classes / count } else { image % classes };
        let labels: Vec<i64> = images.clone().map(|image| class(image) as i64).collect();
        let Some(latents) = self.latents(dit, images, &labels, stop)? else { return Ok(None) };
        if stop.is_requested() {
            return Ok(None);
        }
        let mut pictures = Vec::with_capacity(labels.len());
        let keep = |Decoded { values, height, width }: Decoded<'_>| -> Result<ControlFlow<()>, ObserverError> {
            pictures.push(Picture::from_chw(values, width, height)?);
            let is_last = pictures.len() == labels.len();
            Ok(if stop.is_requested() && !is_last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let decoded = decode_each(&*self.vae, &Latents::new(latents), keep)?;
        Ok(decoded.is_continue().then_some(pictures))
    }

    fn latents(
        &self,
        dit: &Dit,
        images: Range<usize>,
        labels: &[i64],
        stop: &StopRequest,
    ) -> Result<Option<Tensor>, ObserverError> {
        let config = dit.config();
        let labels = Tensor::from_slice(labels).to_device(dit.device()); // (N,)
        let forward = |x: &Tensor, t: Timestep, labels: &Tensor| {
            let t = Tensor::full(x.size()[0], i64::from(t.0), (Kind::Int64, x.device())); // (N,)
            Ok(dit.forward(x, &t, labels))
        };
        let guided = match config.null_class() {
            Some(null) if self.cfg_scale != 1.0 => {
                let channels = GuidedChannels::default_for(config.in_channels);
                let conditional = ClassConditional::new(forward, &labels, null as i64)?;
                Some(ClassifierFree::new(conditional, self.cfg_scale, channels)?)
            }
            _ => None,
        };
        let plain = from_fn(|x: &Tensor, t: Timestep| -> Result<Tensor, DenoiserError> { forward(x, t, &labels) });
        let denoiser: &dyn Denoiser = match &guided {
            Some(guided) => guided,
            None => &plain,
        };
        let source = SeededNoise::new(self.seed);
        let images: Vec<u64> = images.map(|image| image as u64).collect();
        let noise = BatchNoise::new(&source, &images);
        let start = noise.initial(LatentShape::of(config), dit.device())?;
        let sampler = Sampler { schedule: &self.schedule, parameterization: self.parameterization, clip: ClipX0::No };
        let walk = &mut |_: dit_diffusion::Progress<'_>| match stop.is_requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        match sampler.run(denoiser, &mut DpmPlusPlus::second_order(), noise, &start, walk) {
            Err(Error::Cancelled { .. }) => Ok(None),
            latents => Ok(Some(latents?)),
        }
    }
}
