use std::{cell::Cell, ops::ControlFlow};

use dit_classifier::Classifier;
use dit_config::DitConfig;
use dit_diffusion::{
    Autoguidance, BatchNoise, ClassConditional, ClassifierFree, ClassifierGuided, ClipX0, Coefficients, DdimReverse,
    Denoiser, LatentShape, Noise, Progress, Sampler, SeededNoise, Timestep, from_fn,
};
use dit_image::Picture;
use dit_model::{Dit, GraphedDit};
use dit_ops::{allow_tf32, keep_freed_memory};
use dit_vae::{AutoencoderKl, Decoded, LatentCodec, Latents, decode_each};
use tch::{Device, Kind, Tensor};

use crate::{
    Batch, CacheReport, Error, Interpolation, Plan, Precision, Start,
    blend::{SharedNoise, SphericalNoise},
    cache::BlockCache,
    network::{Blend, Network},
};

/// A transformer and, unless only latents are wanted, the codec that turns its latents into pictures; and what settings may ask
/// for beside: a weaker transformer, a classifier, a picture to start from.
#[derive(Debug)]
pub struct Pipeline {
    /// Its graphs live from batch to batch.
    dit: GraphedDit,
    codec: Option<AutoencoderKl>,
    weaker: Option<GraphedDit>,
    classifier: Option<Classifier>,
    init: Option<Latents>,
    cache: Cell<CacheReport>,
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
        let dit = GraphedDit::new(dit);
        Ok(Self { dit, codec: vae, weaker: None, classifier: None, init: None, cache: Cell::default() })
    }

    /// With a weaker transformer for autoguidance.
    ///
    /// # Errors
    /// [`Error::Companion`] unless it has the same latents, classes and output.
    pub fn with_weaker(self, weaker: Dit) -> Result<Self, Error> {
        let (ours, theirs) = (self.dit().config(), weaker.config());
        let of = |config: &DitConfig| (config.in_channels, config.latent, config.num_classes, config.sigma);
        if of(ours) != of(theirs) {
            let problem = format!("it is {theirs}, the checkpoint {ours}");
            return Err(Error::Companion { which: "weaker checkpoint", problem });
        }
        Ok(Self { weaker: Some(GraphedDit::new(weaker)), ..self })
    }

    /// With a classifier of noised latents for guidance.
    ///
    /// # Errors
    /// [`Error::Companion`] unless it has the same latents and classes.
    pub fn with_classifier(self, classifier: Classifier) -> Result<Self, Error> {
        let (ours, theirs) = (self.dit().config(), classifier.spec());
        let latent = [ours.latent.height, ours.latent.width];
        if (ours.in_channels, latent, ours.num_classes) != (theirs.in_channels, theirs.latent, theirs.num_classes) {
            let problem = format!(
                "it is for latents of {} x {} x {} and {} classes, the checkpoint for {} x {} x {} and {}",
                theirs.in_channels,
                theirs.latent[0],
                theirs.latent[1],
                theirs.num_classes,
                ours.in_channels,
                latent[0],
                latent[1],
                ours.num_classes
            );
            return Err(Error::Companion { which: "classifier", problem });
        }
        Ok(Self { classifier: Some(classifier), ..self })
    }

    /// With a picture to start from, as [`encode`](Self::encode) gives it: (1, C, H, W).
    ///
    /// # Errors
    /// [`Error::InitSize`] unless it has the model's size.
    pub fn with_init(self, init: Latents) -> Result<Self, Error> {
        let config = self.dit().config();
        let expected = [1, config.in_channels, config.latent.height, config.latent.width].map(|extent| extent as i64);
        if init.tensor().size() != expected {
            return Err(Error::InitSize { found: init.tensor().size(), expected: expected.to_vec() });
        }
        Ok(Self { init: Some(init), ..self })
    }

    /// The transformer.
    pub fn dit(&self) -> &Dit {
        self.dit.dit()
    }

    /// How often blocks were reused in all batches so far.
    pub fn cache_report(&self) -> CacheReport {
        self.cache.get()
    }

    /// A picture's most probable latents: (1, C, height/f, width/f), for [`with_init`](Self::with_init).
    ///
    /// # Errors
    /// [`Error::NoVae`] without a codec; [`Error::Vae`] where it cannot encode the picture's size.
    pub fn encode(&self, picture: &Picture) -> Result<Latents, Error> {
        let _no_grad = tch::no_grad_guard();
        let codec = self.codec.as_ref().ok_or(Error::NoVae)?;
        let shape = [1, i64::from(picture.height()), i64::from(picture.width()), 3];
        let bytes = Tensor::from_slice(picture.rgb()).view(shape).permute([0, 3, 1, 2]); // (1, 3, H, W)
        let images = bytes.to_kind(Kind::Float) / 127.5 - 1.0;
        let moments = codec.encode(&images.to_device(self.dit().device()).contiguous())?;
        Ok(codec.latents(&moments.mode()))
    }

    /// Walks one batch from noise, or from the picture that the settings start from, to latents.
    ///
    /// # Shapes
    /// → (N, C, H, W) scaled latents, fp32, on the model's device; N images in the batch.
    ///
    /// On CUDA, libtorch's switch for TF32 is set for the whole process, and stays: decoding follows it. On the CPU
    /// the process keeps freed memory from then on ([`keep_freed_memory`]).
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `observe` breaks; [`Error::Mismatch`] if the plan is one for another process, or a precision of another kind, than the model's (bf16 and int8 are of one),
    /// [`Error::Class`] for a class that it does not have; [`Error::NotGiven`] for what the settings ask for and the pipeline
    /// lacks; else what the noise source, a network or a NaN gives.
    pub fn sample(
        &self,
        plan: &Plan,
        batch: &Batch,
        noise: &dyn Noise,
        observe: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Latents, Error> {
        let _no_grad = tch::no_grad_guard();
        self.check(plan, batch)?;
        if self.dit().device().is_cuda() {
            // In bf16 nothing but a classifier hangs on it.
            allow_tf32(plan.settings().precision == Precision::Tf32)?;
        }
        if self.dit().device() == Device::Cpu {
            // Every step takes as much again for its activations.
            keep_freed_memory();
        }
        let images: Vec<u64> = batch.images().collect();
        let (shared, spherical);
        let noise: &dyn Noise = match plan.settings().interpolate {
            None => noise,
            Some(Interpolation::Classes { .. }) => {
                shared = SharedNoise(noise);
                &shared
            }
            Some(on_the_way @ Interpolation::Seeds { to, .. }) => {
                spherical = SphericalNoise { from: noise, to: SeededNoise::new(to), on_the_way };
                &spherical
            }
        };
        let noise = BatchNoise::new(noise, &images);
        let start = self.start(plan, noise)?;
        let sampler =
            Sampler { schedule: plan.schedule(), parameterization: plan.parameterization(), clip: ClipX0::No };
        let denoiser = self.denoiser(plan, batch)?;
        let latents = sampler.run(&*denoiser, &mut *plan.solver()?, noise, &start, observe)?;
        Ok(Latents::new(latents))
    }

    /// Whether this plan's batch is one for this model.
    fn check(&self, plan: &Plan, batch: &Batch) -> Result<(), Error> {
        let mismatch =
            |what, found: String, with, expected: String| Err(Error::Mismatch { what, found, with, expected });
        if let Some(process) = self.dit().process().filter(|process| *process != plan.process()) {
            return mismatch("the plan's process", plan.process().to_string(), "the checkpoint's", process.to_string());
        }
        let precision = plan.settings().precision;
        if precision.kind() != self.dit().kind() {
            let kind = format!("{:?}", self.dit().kind());
            return mismatch("the plan's precision", precision.name().to_owned(), "the model's kind", kind);
        }
        let num_classes = self.dit().config().num_classes;
        match batch.classes.iter().find(|&&class| class as usize >= num_classes) {
            Some(&class) => Err(Error::Class { class, num_classes }),
            None => Ok(()),
        }
    }

    /// Where the walk starts: (N, C, H, W).
    fn start(&self, plan: &Plan, noise: BatchNoise<'_>) -> Result<Tensor, Error> {
        let device = self.dit().device();
        let initial = || noise.initial(LatentShape::of(self.dit().config()), device);
        let samples = noise.images().len() as i64;
        let picture = || -> Result<Tensor, Error> {
            let one = self.init.as_ref().ok_or(Error::NotGiven("a picture to start from"))?.tensor();
            Ok(one.to_device(device).to_kind(Kind::Float).repeat([samples, 1, 1, 1]))
        };
        match plan.settings().start {
            Start::Noise => Ok(initial()?),
            Start::Noised { .. } => {
                let noisiest = plan.schedule().steps().last().ok_or(dit_diffusion::Error::EmptySchedule)?;
                Ok(Coefficients::from(noisiest).q_sample(&picture()?, &initial()?))
            }
            Start::Inverted { class, .. } => {
                let Some(schedule) = plan.inversion() else { return picture() };
                let class = class.map(i64::from).or(self.dit().config().null_class().map(|null| null as i64));
                let class = class.ok_or(Error::NoNullClass)?;
                let labels = Tensor::full([samples], class, (Kind::Int64, device)); // (N,)
                let network = Network::new(&self.dit, None, None);
                let denoiser = from_fn(|x: &Tensor, t| network.forward(x, t, &labels));
                let sampler = Sampler { schedule, parameterization: plan.parameterization(), clip: ClipX0::No };
                let mut watch = |_: Progress<'_>| ControlFlow::Continue(());
                Ok(sampler.run(&denoiser, &mut DdimReverse, noise, &picture()?, &mut watch)?)
            }
        }
    }

    /// The network for this batch's labels, guided as the plan says.
    fn denoiser<'a>(&'a self, plan: &Plan, batch: &Batch) -> Result<Box<dyn Denoiser + 'a>, Error> {
        let classes: Vec<i64> = batch.classes.iter().map(|&class| i64::from(class)).collect();
        let settings = plan.settings();
        let guidance = &settings.guidance;
        let labels = match settings.interpolate {
            Some(Interpolation::Classes { from, .. }) => vec![i64::from(from); classes.len()],
            Some(Interpolation::Seeds { .. }) | None => classes.clone(),
        };
        let labels = Tensor::from_slice(&labels).to_device(self.dit().device()); // (N,)
        let cache = (settings.cache > 0.0).then(|| BlockCache::new(settings.cache, classes.len(), &self.cache));
        let network = Network::new(&self.dit, self.blend(plan, batch), cache);
        let (scale, channels) = (plan.scale(), settings.cfg_channels.guided());
        let null = self.dit().config().null_class().map(|null| null as i64);
        let other = guidance.negative_class.map(i64::from).or(null);
        let guided: Box<dyn Denoiser + 'a> = if guidance.autoguidance_scale.is_some() {
            let weaker = self.weaker.as_ref().ok_or(Error::NotGiven("a weaker checkpoint"))?;
            let weaker = Network::new(weaker, self.blend(plan, batch), None);
            let (ours, theirs) = (labels.shallow_clone(), labels.shallow_clone());
            let strong = from_fn(move |x: &Tensor, t| network.forward(x, t, &ours));
            let weak = from_fn(move |x: &Tensor, t| weaker.forward(x, t, &theirs));
            Box::new(
                ClassifierFree::with_scale(Autoguidance::new(strong, weak), scale, channels)
                    .rescaled(guidance.rescale)?,
            )
        } else if settings.cfg_scale != 1.0 {
            let other = labels.full_like(other.ok_or(Error::NoNullClass)?);
            let forward = move |x: &Tensor, t: Timestep, labels: &Tensor| network.forward(x, t, labels);
            let conditional = ClassConditional::against(forward, &labels, &other)?;
            Box::new(ClassifierFree::with_scale(conditional, scale, channels).rescaled(guidance.rescale)?)
        } else {
            let labels = labels.shallow_clone();
            Box::new(from_fn(move |x: &Tensor, t| network.forward(x, t, &labels)))
        };
        let Some(scale) = guidance.classifier_scale else { return Ok(guided) };
        let classifier = self.classifier.as_ref().ok_or(Error::NotGiven("a classifier"))?;
        let towards = classifier.towards(&Tensor::from_slice(&classes));
        Ok(Box::new(ClassifierGuided::new(guided, towards, scale)?))
    }

    /// Where labels are led to, in a run from class to class.
    fn blend(&self, plan: &Plan, batch: &Batch) -> Option<Blend> {
        let Some(on_the_way @ Interpolation::Classes { to, .. }) = plan.settings().interpolate else { return None };
        let device = self.dit().device();
        let shares: Vec<f64> = batch.images().map(|image| on_the_way.share(image)).collect();
        Some(Blend {
            to: Tensor::full([shares.len() as i64], i64::from(to), (Kind::Int64, device)),
            share: Tensor::from_slice(&shares).to_device(device),
        })
    }

    /// Decodes latents, calling `each` with every picture in order; a few at a time, as [`decode_each`] does.
    ///
    /// # Errors
    /// [`Error::NoVae`] without a codec; else if decoding fails or gives NaN, or `each` fails.
    pub fn decode(&self, latents: &Latents, each: &mut dyn FnMut(Picture) -> Result<(), Error>) -> Result<(), Error> {
        let _no_grad = tch::no_grad_guard();
        let codec = self.codec.as_ref().ok_or(Error::NoVae)?;
        let hand_on = |Decoded { values, height, width }: Decoded<'_>| {
            each(Picture::from_chw(values, width, height)?).map(ControlFlow::Continue)
        };
        decode_each(codec, latents, hand_on).map(drop)
    }
}
