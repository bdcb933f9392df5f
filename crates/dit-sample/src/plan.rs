use std::ops::Range;

use dit_config::{DitConfig, Process};
use dit_diffusion::{
    Ddim, Ddpm, DpmPlusPlus, Draw, EulerAncestral, GuidanceScale, Heun, LatentShape, Noise, NoiseSchedule,
    Parameterization, SampleSchedule, SdeDpmPlusPlus, SeededNoise, Solver, UniPc,
};

use crate::{CfgChannels, Conflict, Error, Interpolation, SamplerKind, Settings, Start};

/// More images than anybody samples in one run; every count and index below fits easily.
pub const MOST_IMAGES: usize = 100_000_000;

/// A checked request: what to compute, for which images, in which batches.
///
/// Invariants: at least one image, every class is the model's, guidance only where there is a null class.
#[derive(Debug)]
pub struct Plan {
    settings: Settings,
    process: Process,
    schedule: SampleSchedule,
    first_image: u64,
    classes: Vec<u32>,
    /// Whether the model tells classes apart.
    is_conditional: bool,
    batch_size: usize,
    scale: GuidanceScale,
    /// The steps over which a picture is inverted, where it is: up to the level that the walk starts from.
    inversion: Option<SampleSchedule>,
}

/// Images that are computed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Index of the first, counted over the run.
    pub first_image: u64,
    /// The class of each.
    pub classes: Vec<u32>,
}

impl Batch {
    /// Index of every image.
    pub fn images(&self) -> Range<u64> {
        self.first_image..self.first_image.saturating_add(self.classes.len() as u64)
    }
}

impl Plan {
    /// Checks `settings` and `classes` (one for each image, from `first_image` on) against the model.
    ///
    /// # Errors
    /// A class or latent channels that the model does not have, guidance without a null class, no image, or settings that
    /// [`dit_diffusion`] refuses.
    pub fn new(
        config: &DitConfig,
        settings: Settings,
        first_image: u64,
        classes: Vec<u32>,
        batch_size: usize,
    ) -> Result<Self, Error> {
        if classes.is_empty() || classes.len() > MOST_IMAGES {
            return Err(Error::ImageCount(classes.len()));
        }
        if batch_size == 0 {
            return Err(Error::BatchSize);
        }
        if first_image.checked_add(MOST_IMAGES as u64).is_none() {
            return Err(Error::FirstImage(first_image));
        }
        if let Some(&class) = classes.iter().find(|&&class| class as usize >= config.num_classes) {
            return Err(Error::Class { class, num_classes: config.num_classes });
        }
        if settings.cfg_scale != 1.0 && settings.guidance.negative_class.is_none() && config.null_class().is_none() {
            return Err(Error::NoNullClass);
        }
        let is_guided = settings.cfg_scale != 1.0 || settings.guidance.autoguidance_scale.is_some();
        if is_guided && settings.cfg_channels == CfgChannels::Three && config.in_channels < 3 {
            return Err(Error::Conflict(Conflict::TooFewChannels { latent_channels: config.in_channels }));
        }
        let process = process(config, &settings)?;
        let training = NoiseSchedule::of(&process)?;
        let whole = training.respaced(&settings.steps)?;
        let walked = settings.start.steps(whole.num_steps())?;
        let schedule = whole.least_noisy(walked)?;
        let inversion = match settings.start {
            Start::Inverted { .. } if walked > 1 => Some(whole.least_noisy(walked - 1)?),
            Start::Inverted { .. } | Start::Noise | Start::Noised { .. } => None,
        };
        let scale = settings.guidance.scale(settings.cfg_scale, &training)?;
        check_options(config, &settings, first_image..first_image + classes.len() as u64)?;
        let is_conditional = config.num_classes > 1;
        let plan =
            Self { settings, process, schedule, first_image, classes, is_conditional, batch_size, scale, inversion };
        plan.solver()?;
        Ok(plan)
    }

    /// How it is sampled.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The noise levels to walk.
    pub fn schedule(&self) -> &SampleSchedule {
        &self.schedule
    }

    /// The guidance scale over the walk.
    pub(crate) fn scale(&self) -> GuidanceScale {
        self.scale
    }

    /// The steps of the inversion, where there is one.
    pub(crate) fn inversion(&self) -> Option<&SampleSchedule> {
        self.inversion.as_ref()
    }

    /// The diffusion process that is sampled.
    pub fn process(&self) -> Process {
        self.process
    }

    /// How the network's output is read.
    pub fn parameterization(&self) -> Parameterization {
        Parameterization::of(&self.process)
    }

    /// Whether a weaker checkpoint of process `weaker` can guide: its outputs are mixed with the network's.
    ///
    /// # Errors
    /// [`Error::Companion`] for another process.
    pub fn check_weaker(&self, weaker: &Process) -> Result<(), Error> {
        if *weaker == self.process {
            return Ok(());
        }
        let problem = format!("it was trained on another process, {weaker}; the checkpoint on {}", self.process);
        Err(Error::Companion { which: "weaker checkpoint", problem })
    }

    /// A fresh solver for one batch.
    ///
    /// # Errors
    /// If the sampler's own settings are out of range.
    pub fn solver(&self) -> Result<Box<dyn Solver + Send>, Error> {
        Ok(match self.settings.sampler {
            SamplerKind::Ddpm => Box::new(Ddpm),
            SamplerKind::Ddim { eta } => Box::new(Ddim::new(eta)?),
            SamplerKind::DpmPlusPlus2M => Box::new(DpmPlusPlus::second_order()),
            SamplerKind::DpmPlusPlus3M => Box::new(DpmPlusPlus::third_order()),
            SamplerKind::DpmPlusPlus2MSde => Box::new(SdeDpmPlusPlus::new()),
            SamplerKind::UniPc => Box::new(UniPc::second_order()),
            SamplerKind::Heun => Box::new(Heun),
            SamplerKind::EulerAncestral => Box::new(EulerAncestral),
        })
    }

    /// The noise of the settings' seed.
    pub fn noise(&self) -> SeededNoise {
        SeededNoise::new(self.settings.seed)
    }

    /// Whether `noise` can serve every image of the run: asked before anything is computed.
    ///
    /// # Errors
    /// What the noise source says.
    pub fn check_noise(&self, config: &DitConfig, noise: &dyn Noise) -> Result<(), Error> {
        let shape = LatentShape::of(config);
        let last = self.first_image + self.classes.len() as u64 - 1;
        let _drawn = noise.draw(&[self.first_image, last], Draw::Initial, shape)?;
        if self.solver()?.is_stochastic() {
            noise.check(&[self.first_image, last], self.schedule.num_steps(), shape)?;
        }
        Ok(())
    }

    /// The class of every image.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// The class that each picture shows; none where pictures are between classes, or the model knows but one.
    pub fn labels(&self) -> Option<&[u32]> {
        let is_between = matches!(self.settings.interpolate, Some(Interpolation::Classes { .. }));
        (self.is_conditional && !is_between).then_some(&self.classes)
    }

    /// Index of the first image.
    pub fn first_image(&self) -> u64 {
        self.first_image
    }

    /// Images computed at once, at most.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The batches, in order.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = Batch> {
        self.classes.chunks(self.batch_size).enumerate().map(|(i, classes)| Batch {
            first_image: self.first_image + (i * self.batch_size) as u64,
            classes: classes.to_vec(),
        })
    }
}

/// The process that the settings say, else the original's.
fn process(config: &DitConfig, settings: &Settings) -> Result<Process, Error> {
    let original = Process::original(config.sigma);
    let process = settings.process.unwrap_or(original);
    if process.output() != config.sigma {
        return Err(Error::Conflict(Conflict::Process { process, sigma: config.sigma }));
    }
    // Classifiers are trained on the original's noise.
    if settings.guidance.classifier_scale.is_some() && !process.noises_as(&original) {
        return Err(Error::Conflict(Conflict::NoisedOtherwise(process)));
    }
    Ok(process)
}

/// What does not depend on the schedule.
fn check_options(config: &DitConfig, settings: &Settings, images: Range<u64>) -> Result<(), Error> {
    let Settings { sampler, guidance, start, interpolate, cache, .. } = settings;
    let refused = |conflict| Err(Error::Conflict(conflict));
    let class = |class: u32| match (class as usize) < config.num_classes {
        true => Ok(()),
        false => Err(Error::Class { class, num_classes: config.num_classes }),
    };
    if let Some(negative) = guidance.negative_class {
        class(negative)?;
    }
    if let Some(scale) = guidance.classifier_scale.filter(|scale| !scale.is_finite()) {
        return Err(dit_diffusion::Error::ClassifierScale { scale }.into());
    }
    if !(0.0..=1.0).contains(&guidance.rescale) {
        return Err(dit_diffusion::Error::GuidanceRescale { share: guidance.rescale }.into());
    }
    if !(*cache >= 0.0 && cache.is_finite()) {
        return refused(Conflict::CacheFactor(*cache));
    }
    if let Start::Inverted { class: of, .. } = start {
        if sampler.is_stochastic() {
            return refused(Conflict::InversionBeforeNoise(*sampler));
        }
        match of {
            Some(of) => class(*of)?,
            None if config.null_class().is_none() => return refused(Conflict::InversionWithoutClass),
            None => {}
        }
    }
    let Some(interpolation) = interpolate else { return Ok(()) };
    let frames = interpolation.frames();
    if frames < 2 {
        return refused(Conflict::TooFewFrames(frames));
    }
    // A batch of it may be sampled alone, as a recipe does.
    if images.end > u64::from(frames) {
        return refused(Conflict::BeyondInterpolation { first: images.start, last: images.end - 1, frames });
    }
    match *interpolation {
        Interpolation::Classes { from, to, .. } => class(from).and(class(to))?,
        Interpolation::Seeds { .. } if sampler.is_stochastic() => {
            return refused(Conflict::SeedsUnderNoise(*sampler));
        }
        Interpolation::Seeds { .. } => {}
    }
    if start.needs_picture() {
        return refused(Conflict::InterpolationFromPicture);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_strip(frames: u32, first_image: u64, images: usize, refused: Option<&str>) {
        let config = "DiT-S/8".parse::<DitConfig>().unwrap();
        let interpolate = Some(Interpolation::Classes { from: 1, to: 2, frames });
        let settings = Settings { interpolate, ..Settings::default() };
        match (Plan::new(&config, settings, first_image, vec![1; images], 4), refused) {
            (Ok(plan), None) => assert_eq!(plan.first_image(), first_image),
            (Err(error), Some(text)) => assert!(error.to_string().contains(text), "'{error}' lacks '{text}'"),
            (plan, _) => panic!("{plan:?}, expected {refused:?}"),
        }
    }

    #[test]
    fn a_strip_is_sampled_whole_or_in_part_and_not_beyond() {
        check_strip(9, 0, 9, None);
        check_strip(9, 4, 4, None);
        check_strip(9, 8, 1, None);
        check_strip(9, 8, 2, Some("pictures 8 to 9 of an interpolation of 9"));
        check_strip(9, 9, 1, Some("pictures 9 to 9"));
        check_strip(1, 0, 1, Some("an interpolation of 1 pictures leads nowhere"));
    }
}
