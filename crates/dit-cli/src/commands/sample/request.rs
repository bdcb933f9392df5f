//! What was typed, completed by a PNG's recipe and by defaults.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dit_args::{GuidedChannelsArg, LabelsArg, SampleArgs, SamplePrecisionArg, SamplerArg};
use dit_classes::ClassNames;
use dit_config::{DitConfig, Process};
use dit_sample::{
    CfgChannels, Error, Interpolation, LabelPolicy, MOST_IMAGES, OpenedAs, OutputPaths, Precision, SamplerKind,
    Settings, Shows, Spacing,
};
use tch::Device;

use super::{options::Options, repeated::Repeated};
use crate::{
    recorded::expand,
    usage::{Usage, wrong_usage},
};

/// The classes that the original's script samples.
const ORIGINAL_CLASSES: [u32; 8] = [207, 360, 387, 974, 88, 979, 417, 279];
const DEFAULT_CFG_SCALE: f64 = 4.0;

/// A resolved request: everything but what the checkpoint itself decides.
pub struct Request {
    pub checkpoint: Option<String>,
    pub opened_as: OpenedAs,
    pub vae: Option<String>,
    pub noise: Option<PathBuf>,
    /// The checkpoint that autoguidance guides away from.
    pub weaker: Option<String>,
    pub classifier: Option<PathBuf>,
    /// The picture to start from.
    pub init: Option<PathBuf>,
    pub labels: LabelPolicy,
    pub from_png: Option<PathBuf>,
    /// What `from_png` brought.
    pub repeated: Option<Repeated>,
    pub seed: u64,
    pub device: String,
    pub threads: Option<usize>,
    pub batch_size: Option<usize>,
    pub first_image: u64,
    pub shows: Shows,
    pub outputs: OutputPaths,
    class_list: Option<String>,
    num_samples: usize,
    image_size: Option<usize>,
    sampler: SamplerKind,
    steps: Option<Spacing>,
    cfg_scale: Option<f64>,
    cfg_channels: Option<CfgChannels>,
    /// They were typed, not a recipe's.
    channels_asked_for: bool,
    /// The options beyond the plain scale.
    options: Options,
    /// `None` is the fastest faithful one of the device.
    precision: Option<Precision>,
}

impl Request {
    pub fn from_args(args: &SampleArgs) -> Result<Self> {
        let repeated = Repeated::from_args(args)?;
        let old = repeated.as_ref().map(|repeated| &repeated.recipe);
        let kept = repeated.as_ref().and_then(Repeated::of_same_images);
        let settings = old.map(|recipe| &recipe.settings);
        if args.num_samples == Some(0) {
            wrong_usage!("--num-samples 0: there is nothing to sample");
        }
        if args.batch_size == Some(0) {
            wrong_usage!("--batch-size 0: at least one picture has to be computed at once");
        }
        let noise =
            args.noise.clone().or(old.and_then(|recipe| Some(PathBuf::from(expand(&recipe.noise.as_ref()?.name)))));
        if args.seed.is_some() && noise.is_some() {
            wrong_usage!(
                "--seed has no effect where the noise is replayed from {}; leave one out",
                noise.unwrap_or_default().display()
            );
        }
        if old.is_some() && args.class.is_none() {
            let flags = [(args.num_samples.is_some(), "--num-samples"), (args.labels.is_some(), "--labels")];
            if let Some((_, flag)) = flags.iter().find(|(given, _)| *given) {
                wrong_usage!("{flag} needs --class where --from-png gives the pictures");
            }
        }
        let options = Options::from_args(args, old)?;
        if let (true, Some(noise)) = (options.is_strip(), &noise) {
            wrong_usage!(
                "a strip from one picture to another has its own noise, and the recipe of the PNG replays {}\n  \
                 help: leave --from-png out, or --interpolate",
                noise.display()
            );
        }
        let labels = args.labels.map(label_policy).or(old.map(|recipe| recipe.labels));
        Ok(Self {
            weaker: options.weaker.clone(),
            classifier: options.classifier.clone(),
            init: options.init.clone(),
            // The classes of a strip are not chosen from a list.
            labels: labels.filter(|_| !options.is_strip()).unwrap_or_default(),
            checkpoint: args.ckpt.clone().or(old.map(|recipe| recipe.checkpoint.name.clone())),
            opened_as: OpenedAs {
                model: args.opened_as.model.clone().or(old.and_then(|recipe| recipe.opened_as.model.clone())),
                num_heads: args.opened_as.num_heads.or(old.and_then(|recipe| recipe.opened_as.num_heads)),
            },
            vae: args.vae.clone().or(old.map(|recipe| recipe.vae.name.clone())),
            noise,
            from_png: args.from_png.clone(),
            seed: options.first_seed.or(args.seed).or(settings.map(|settings| settings.seed)).unwrap_or(0),
            device: args
                .machine
                .device
                .clone()
                .or(old.map(|recipe| recipe.device.clone()))
                .unwrap_or("auto".to_owned()),
            threads: args.machine.threads.or(old.map(|recipe| recipe.threads)),
            batch_size: args.batch_size.or(kept.map(|recipe| recipe.batch_size)),
            first_image: kept.map_or(0, |recipe| recipe.first_image),
            shows: kept.map_or(Shows::Grid, |recipe| recipe.shows),
            outputs: outputs(args),
            class_list: args.class.clone(),
            num_samples: args.num_samples.unwrap_or(1),
            image_size: args.image_size,
            sampler: sampler(args, settings)?,
            // The steps of another sampler mean little for this one.
            steps: match &args.steps {
                Some(text) => Some(text.parse()?),
                None => settings.filter(|_| args.sampler.is_none()).map(|settings| settings.steps.clone()),
            },
            cfg_scale: args.cfg_scale.or(settings.map(|settings| settings.cfg_scale)),
            cfg_channels: args
                .guidance
                .cfg_channels
                .map(|channels| match channels {
                    GuidedChannelsArg::Three => CfgChannels::Three,
                    GuidedChannelsArg::All => CfgChannels::All,
                })
                .or(settings.map(|settings| settings.cfg_channels)),
            channels_asked_for: args.guidance.cfg_channels.is_some(),
            options,
            precision: match args.precision {
                Some(SamplePrecisionArg::Auto) => None,
                Some(SamplePrecisionArg::Fp32) => Some(Precision::Fp32),
                Some(SamplePrecisionArg::Tf32) => Some(Precision::Tf32),
                Some(SamplePrecisionArg::Bf16) => Some(Precision::Bf16),
                Some(SamplePrecisionArg::Int8) => Some(Precision::Int8),
                None => Some(settings.map_or(Precision::Fp32, |settings| settings.precision)),
            },
            repeated,
        })
    }

    /// One class for each image.
    pub fn classes(&self, names: &ClassNames) -> Result<Vec<u32>> {
        if let Some(recipe) = self.repeated.as_ref().and_then(Repeated::of_same_images) {
            return Ok(recipe.classes.clone());
        }
        if let Some(interpolation) = self.options.interpolation(names)? {
            return self.classes_on_the_way(interpolation, names);
        }
        let listed = match &self.class_list {
            Some(list) => names.parse_list(list)?,
            None if names.len() == 1000 => ORIGINAL_CLASSES.to_vec(),
            None => (0..names.len()).collect(),
        };
        let count = listed.len().saturating_mul(self.num_samples);
        if count > MOST_IMAGES {
            wrong_usage!("{count} pictures are asked for; at most {MOST_IMAGES} can be sampled in one run");
        }
        Ok(self.labels.classes(&listed, self.num_samples, self.seed))
    }

    /// One class for each frame: the nearer one.
    fn classes_on_the_way(&self, interpolation: Interpolation, names: &ClassNames) -> Result<Vec<u32>> {
        let frames = interpolation.frames() as usize;
        match interpolation {
            Interpolation::Classes { from, to, .. } => {
                Ok((0..frames).map(|frame| if 2 * frame < frames { from } else { to }).collect())
            }
            Interpolation::Seeds { .. } => {
                let listed = match (&self.class_list, &self.repeated) {
                    (Some(list), _) => names.parse_list(list)?,
                    (None, Some(repeated)) => repeated.shown_classes(),
                    (None, None) => Vec::new(),
                };
                match listed[..] {
                    [class] => Ok(vec![class; frames]),
                    _ => wrong_usage!(
                        "--interpolate seeds leads between pictures of one class, not of {}\n  help: pass --class with that class",
                        listed.len()
                    ),
                }
            }
        }
    }

    /// The settings, with the defaults that depend on the model.
    pub fn settings(
        &self,
        config: &DitConfig,
        process: &Process,
        names: &ClassNames,
        device: Device,
    ) -> Result<Settings> {
        let precision = self.precision.unwrap_or_else(|| Precision::auto(device));
        if !precision.is_supported(device) {
            let needs = if precision == Precision::Tf32 {
                "a CUDA device"
            } else {
                "a CPU with AVX2, AVX-512 VNNI or Arm's dotprod"
            };
            bail!("--precision {}: needs {needs}\n  help: pass --precision auto", precision.name());
        }
        let guided = config.null_class().is_some() && self.options.autoguidance_scale.is_none();
        let default_scale = if guided { DEFAULT_CFG_SCALE } else { 1.0 };
        let settings = Settings {
            sampler: self.sampler,
            steps: self.steps.clone().unwrap_or_else(|| self.sampler.default_steps_of(process)),
            cfg_scale: self.cfg_scale.unwrap_or(default_scale),
            cfg_channels: self.cfg_channels.unwrap_or(CfgChannels::default_for(config.in_channels)),
            seed: self.seed,
            precision,
            process: (!process.is_original()).then_some(*process),
            guidance: self.options.guidance(names)?,
            start: self.options.start(names)?,
            interpolate: self.options.interpolation(names)?,
            cache: self.options.cache,
        };
        let scale = settings.guidance.autoguidance_scale.unwrap_or(settings.cfg_scale);
        if self.channels_asked_for && scale == 1.0 {
            wrong_usage!(
                "--cfg-channels has no effect at a guidance scale of 1\n  \
                 help: pass --cfg-scale above 1 with it, or leave --cfg-channels out"
            );
        }
        if !settings.cfg_scale.is_finite() {
            wrong_usage!("--cfg-scale {}: expected a finite number", settings.cfg_scale);
        }
        Ok(settings)
    }

    /// Whether the checkpoint and codec make pictures of the size that was asked for; `downsampling` is the codec's.
    pub fn check_image_size(&self, config: &DitConfig, downsampling: usize) -> Result<()> {
        let made = (config.latent.width * downsampling, config.latent.height * downsampling);
        match self.image_size {
            Some(size) if (size, size) != made => wrong_usage!(
                "--image-size {size}: this checkpoint makes pictures of {} x {} pixels\n  \
                 help: pass the checkpoint that was trained at {size} pixels, or leave --image-size out",
                made.0,
                made.1
            ),
            _ => Ok(()),
        }
    }

    /// Why an output cannot be written: it may be the very picture that is repeated.
    pub fn explain_output(&self, error: Error) -> anyhow::Error {
        let place = |path: &Path| path.canonicalize().ok();
        match (&error, &self.from_png) {
            (Error::SamePath(path), Some(png)) if place(path).is_some() && place(path) == place(png) => Usage(format!(
                "{}: it is the picture that is repeated\n  help: give its repetition another name",
                path.display()
            ))
            .into(),
            _ => error.into(),
        }
    }

    /// What to say where a file of the recipe is not there any more.
    pub fn hint(&self, flag: &str) -> String {
        let does = if flag == "--init" { "starts from that picture" } else { "names it" };
        match &self.repeated {
            Some(repeated) if repeated.names(flag) => {
                format!("the recipe of the PNG {does}; pass {flag} if it is elsewhere now")
            }
            _ => flag.to_owned(),
        }
    }
}

fn label_policy(labels: LabelsArg) -> LabelPolicy {
    match labels {
        LabelsArg::Balanced => LabelPolicy::Balanced,
        LabelsArg::Random => LabelPolicy::Random,
    }
}

fn sampler(args: &SampleArgs, old: Option<&Settings>) -> Result<SamplerKind> {
    let old = old.map(|settings| settings.sampler);
    let chosen = match (args.sampler, old) {
        (None, Some(old)) => old,
        (None, None) | (Some(SamplerArg::Ddpm), _) => SamplerKind::Ddpm,
        (Some(SamplerArg::Ddim), Some(old @ SamplerKind::Ddim { .. })) => old,
        (Some(SamplerArg::Ddim | SamplerArg::Euler), _) => SamplerKind::Ddim { eta: 0.0 },
        (Some(SamplerArg::DpmPlusPlus2M), _) => SamplerKind::DpmPlusPlus2M,
        (Some(SamplerArg::DpmPlusPlus3M), _) => SamplerKind::DpmPlusPlus3M,
        (Some(SamplerArg::DpmPlusPlus2MSde), _) => SamplerKind::DpmPlusPlus2MSde,
        (Some(SamplerArg::UniPc), _) => SamplerKind::UniPc,
        (Some(SamplerArg::Heun), _) => SamplerKind::Heun,
        (Some(SamplerArg::EulerAncestral), _) => SamplerKind::EulerAncestral,
    };
    match (chosen, args.eta) {
        (SamplerKind::Ddim { .. }, Some(eta)) if args.sampler != Some(SamplerArg::Euler) => {
            Ok(SamplerKind::Ddim { eta })
        }
        (_, Some(_)) => wrong_usage!("--eta is DDIM's; pass --sampler ddim with it"),
        (chosen, None) => Ok(chosen),
    }
}

/// `sample.png` unless some output is named.
fn outputs(args: &SampleArgs) -> OutputPaths {
    let given = [
        &args.outputs.out,
        &args.outputs.out_dir,
        &args.outputs.npz,
        &args.outputs.latents,
        &args.outputs.animate,
        &args.outputs.trajectory,
    ];
    let named = given.into_iter().any(Option::is_some);
    OutputPaths {
        animation: args.outputs.animate.clone(),
        trajectory: args.outputs.trajectory.clone(),
        png: args.outputs.out.clone().or_else(|| (!named).then(|| PathBuf::from("sample.png"))),
        dir: args.outputs.out_dir.clone(),
        npz: args.outputs.npz.clone(),
        latents: args.outputs.latents.clone(),
    }
}
