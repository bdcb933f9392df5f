//! What the recipe's `[eval]` asks for: FID of a few samples of the average.

use std::{path::Path, rc::Rc, time::Instant};

use anyhow::{Context, Result, bail};
use dit_data::shard::Manifest;
use dit_eval::{FeatureNetwork, FidStream, Fit, FrechetReference, Gaussian, statistics_of};
use dit_model::Dit;
use dit_recipe::{EvalSection, Every, Recipe};
use dit_train::{EvaluationReport, Evaluator, ObserverError, StopRequest, watch::AverageSampler};
use dit_vae::AutoencoderKl;
use tch::{Device, Tensor};

use crate::{
    commands::evaluate::input::{Input, network},
    speak::say,
};

/// Samples that are computed at once.
const BATCH: usize = 64;
/// Where the reference's features are kept, below the run.
const CACHE: &str = "reference.features";

/// Measures samples of the run.
pub struct TrainingFid {
    request: EvalSection,
    network: Box<dyn FeatureNetwork>,
    reference: FrechetReference,
    sampler: AverageSampler,
}

/// What the recipe asks for, opened: what is wrong with it is told before a run is begun.
pub struct Asked<'a> {
    recipe: &'a Recipe,
    network: Box<dyn FeatureNetwork>,
    reference: &'a str,
    input: Input<'a>,
}

impl<'a> Asked<'a> {
    /// As the recipe says; none where it says nothing.
    pub fn open(recipe: &'a Recipe, manifest: &Manifest, device: Device) -> Result<Option<Self>> {
        let request = &recipe.eval;
        let (Every::Steps(_), Some(reference)) = (request.every, &request.reference) else { return Ok(None) };
        let (side, crop) = (manifest.settings.image_size, manifest.settings.crop);
        let network = network(&request.features, device).context("eval.features")?;
        network.check_size(side, side).context("eval.features")?;
        let fit = Fit::Square { side, crop };
        let input = Input::open(Path::new(reference), fit).with_context(|| format!("eval.reference is {reference}"))?;
        Ok(Some(Self { recipe, network, reference, input }))
    }

    /// Makes the reference's statistics, whose features are kept below `run`.
    pub fn prepare(self, vae: Rc<AutoencoderKl>, run: &Path) -> Result<TrainingFid> {
        let Self { recipe, network, reference, input } = self;
        let request = recipe.eval.clone();
        let gaussian = reference_of(&input, &*network, &run.join(CACHE))
            .with_context(|| format!("eval.reference is {reference}"))?;
        let width = network.widths().pooled;
        if gaussian.width() != width {
            let found = gaussian.width();
            bail!("{reference} has statistics of {found} features, `{}` has {width}", network.name());
        }
        if request.count <= width {
            say(format_args!(
                "warning: eval.count {} is no more than the {width} features of `{}`: FID will be far too large",
                request.count,
                network.name()
            ));
        }
        let sampler = AverageSampler::new(recipe, request.steps, request.cfg_scale, request.seed, vae)?;
        Ok(TrainingFid { request, network, reference: FrechetReference::new(gaussian)?, sampler })
    }
}

fn reference_of(input: &Input<'_>, network: &dyn FeatureNetwork, cache: &Path) -> Result<Gaussian> {
    if let Some(statistics) = &input.statistics {
        if let Some(notes) = &statistics.notes {
            notes.check(network)?;
        }
        return Ok(Gaussian::new(statistics.pooled.mean().copy(), statistics.pooled.covariance().copy())?);
    }
    match input.features(network, Some(cache), BATCH)? {
        Some((features, _)) => Ok(statistics_of(&features)?.pooled),
        None => bail!("it has neither pictures nor statistics"),
    }
}

impl Evaluator for TrainingFid {
    fn evaluate(
        &mut self,
        step: u64,
        ema: &Dit,
        stop: &StopRequest,
    ) -> Result<Option<EvaluationReport>, ObserverError> {
        let begun = Instant::now();
        let count = self.request.count;
        let mut stream = FidStream::new(&self.reference, count, self.request.seed)?;
        for first in (0..count).step_by(BATCH) {
            let images = first..count.min(first + BATCH);
            let Some(pictures) = self.sampler.draw(ema, images, count, stop)? else { return Ok(None) };
            let Some(shape) = pictures.first().map(|picture| (picture.height(), picture.width())) else { continue };
            let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.rgb().iter().copied()).collect();
            let shape = [pictures.len() as i64, i64::from(shape.0), i64::from(shape.1), 3];
            let pictures = Tensor::f_from_slice(&bytes)?.f_view(shape)?; // (N, H, W, 3)
            stream.push(&self.network.extract(&pictures)?.pooled)?;
        }
        let fid = stream.estimate()?;
        Ok(Some(EvaluationReport {
            step,
            samples: count,
            features: self.network.name().to_owned(),
            cfg_scale: self.request.cfg_scale,
            fid: fid.value,
            interval: [fid.low, fid.high],
            time: begun.elapsed(),
        }))
    }
}
