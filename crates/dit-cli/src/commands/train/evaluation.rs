//! What the recipe's `[eval]` asks for: FID of a few samples of the average.

use std::{path::Path, rc::Rc, time::Instant};

use anyhow::{Context, Result, bail};
use dit_data::shard::Manifest;
use dit_eval::{FeatureNetwork, FidStream, Fit, FrechetReference, Gaussian, statistics_of};
use dit_model::Dit;
use dit_recipe::{EvalSection, Every, Recipe};
use dit_train::{EvaluationReport, Evaluator, ObserverError, watch::AverageSampler};
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

impl TrainingFid {
    /// As the recipe says; none where it says nothing.
    pub fn new(
        recipe: &Recipe,
        manifest: &Manifest,
        vae: Rc<AutoencoderKl>,
        run: &Path,
        device: Device,
    ) -> Result<Option<Self>> {
        let request = recipe.eval.clone();
        let (Every::Steps(_), Some(reference)) = (request.every, &request.reference) else { return Ok(None) };
        let (side, crop) = (manifest.settings.image_size, manifest.settings.crop);
        let network = network(&request.features, device).context("eval.features")?;
        network.check_size(side, side).context("eval.features")?;
        let path = Path::new(reference);
        let of = || format!("eval.reference is {reference}");
        let input = Input::open(path, Fit::Square { side, crop }).with_context(of)?;
        let gaussian = reference_of(&input, &*network, &run.join(CACHE)).with_context(of)?;
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
        Ok(Some(Self { request, network, reference: FrechetReference::new(gaussian)?, sampler }))
    }
}

fn reference_of(input: &Input<'_>, network: &dyn FeatureNetwork, cache: &Path) -> Result<Gaussian> {
    if let Some(statistics) = &input.statistics {
        return Ok(Gaussian::new(statistics.pooled.mean().copy(), statistics.pooled.covariance().copy())?);
    }
    match input.features(network, Some(cache), BATCH)? {
        Some((features, _)) => Ok(statistics_of(&features)?.pooled),
        None => bail!("it has neither pictures nor statistics"),
    }
}

impl Evaluator for TrainingFid {
    fn evaluate(&mut self, step: u64, ema: &Dit) -> Result<EvaluationReport, ObserverError> {
        let begun = Instant::now();
        let count = self.request.count;
        let mut stream = FidStream::new(&self.reference, count, self.request.seed)?;
        for first in (0..count).step_by(BATCH) {
            let pictures = self.sampler.draw(ema, first..count.min(first + BATCH), count)?;
            let Some(shape) = pictures.first().map(|picture| (picture.height(), picture.width())) else { continue };
            let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.rgb().iter().copied()).collect();
            let shape = [pictures.len() as i64, i64::from(shape.0), i64::from(shape.1), 3];
            let pictures = Tensor::f_from_slice(&bytes)?.f_view(shape)?; // (N, H, W, 3)
            stream.push(&self.network.extract(&pictures)?.pooled)?;
        }
        let fid = stream.estimate()?;
        Ok(EvaluationReport {
            step,
            samples: count,
            features: self.network.name().to_owned(),
            cfg_scale: self.request.cfg_scale,
            fid: fid.value,
            interval: [fid.low, fid.high],
            time: begun.elapsed(),
        })
    }
}
