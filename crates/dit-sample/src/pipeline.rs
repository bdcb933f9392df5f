use std::ops::ControlFlow;

use dit_diffusion::{
    BatchNoise, ClassConditional, ClassifierFree, ClipX0, Denoiser, DenoiserError, Noise, Progress, Sampler, Timestep,
    from_fn,
};
use dit_image::Picture;
use dit_model::Dit;
use dit_vae::{AutoencoderKl, LatentCodec, Latents};
use tch::{Kind, Tensor};

use crate::{Batch, Error, Plan, plan::latent_shape};

/// A transformer and, unless only latents are wanted, the codec that turns its latents into pictures.
#[derive(Debug)]
pub struct Pipeline {
    dit: Dit,
    codec: Option<AutoencoderKl>,
}

impl Pipeline {
    /// Puts both together.
    ///
    /// # Errors
    /// If the codec's latent channels are not the model's, or it decodes to something other than RGB.
    pub fn new(dit: Dit, vae: Option<AutoencoderKl>) -> Result<Self, Error> {
        if let Some(vae) = &vae {
            let (channels, model) = (vae.latent_channels(), dit.config().in_channels);
            if channels != model {
                return Err(Error::LatentChannels { vae: channels, model });
            }
            if vae.config().out_channels != 3 {
                return Err(Error::PictureChannels(vae.config().out_channels));
            }
        }
        Ok(Self { dit, codec: vae })
    }

    /// The transformer.
    pub fn dit(&self) -> &Dit {
        &self.dit
    }

    /// Walks one batch from noise to latents.
    ///
    /// # Shapes
    /// → (N, C, H, W) scaled latents, fp32, on the model's device; N images in the batch.
    ///
    /// # Errors
    /// [`dit_diffusion::Error::Cancelled`] if `observe` breaks; else what the noise source, the network or a NaN gives.
    pub fn sample(
        &self,
        plan: &Plan,
        batch: &Batch,
        noise: &dyn Noise,
        observe: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Latents, Error> {
        let _no_grad = tch::no_grad_guard();
        let images: Vec<u64> = batch.images().collect();
        let noise = BatchNoise::new(noise, &images);
        let start = noise.initial(latent_shape(self.dit.config()), self.dit.device())?;
        let sampler =
            Sampler { schedule: plan.schedule(), parameterization: plan.parameterization(), clip: ClipX0::No };
        let denoiser = self.denoiser(plan, batch)?;
        let latents = sampler.run(&*denoiser, &mut *plan.solver()?, noise, &start, observe)?;
        Ok(Latents::new(latents))
    }

    /// The network for this batch's labels, guided as the plan says.
    fn denoiser<'a>(&'a self, plan: &Plan, batch: &Batch) -> Result<Box<dyn Denoiser + 'a>, Error> {
        let labels: Vec<i64> = batch.classes.iter().map(|&class| i64::from(class)).collect();
        let labels = Tensor::from_slice(&labels).to_device(self.dit.device()); // (N,)
        let settings = plan.settings();
        match self.dit.config().null_class() {
            Some(null) if settings.cfg_scale != 1.0 => {
                let forward = |x: &Tensor, t: Timestep, labels: &Tensor| Ok(self.forward(x, t, labels));
                let conditional = ClassConditional::new(forward, &labels, null as i64)?;
                let guided = ClassifierFree::new(conditional, settings.cfg_scale, settings.cfg_channels.guided())?;
                Ok(Box::new(guided))
            }
            _ => Ok(Box::new(from_fn(move |x: &Tensor, t| -> Result<_, DenoiserError> {
                Ok(self.forward(x, t, &labels))
            }))),
        }
    }

    fn forward(&self, x: &Tensor, t: Timestep, labels: &Tensor) -> Tensor {
        let t = Tensor::full(x.size()[0], i64::from(t.0), (Kind::Int64, x.device())); // (N,)
        self.dit.forward(x, &t, labels) // (N, C or 2C, H, W)
    }

    /// Decodes latents, calling `each` with every picture in order. One picture is decoded at a time: on a CPU larger batches
    /// leave the cache, and so memory does not grow with the batch.
    ///
    /// # Errors
    /// [`Error::NoVae`] without a codec; else if decoding fails or gives NaN, or `each` fails.
    pub fn decode(&self, latents: &Latents, each: &mut dyn FnMut(Picture) -> Result<(), Error>) -> Result<(), Error> {
        let _no_grad = tch::no_grad_guard();
        let codec = self.codec.as_ref().ok_or(Error::NoVae)?;
        for latent in latents.tensor().split(1, 0) {
            let image = codec.decode(&Latents::new(latent))?; // (1, 3, H, W)
            let (width, height) = (image.size()[3] as u32, image.size()[2] as u32);
            each(Picture::from_chw(&to_vec(&image), width, height)?)?;
        }
        Ok(())
    }
}

/// The values of `tensor`, row-major.
pub(crate) fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}
