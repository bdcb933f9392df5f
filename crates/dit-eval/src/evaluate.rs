//! Samples against a reference.

use std::collections::BTreeSet;

use serde::Serialize;
use tch::Tensor;

use crate::{
    Error, Estimate, FeatureSet, FidStream, FrechetReference, Gaussian, InceptionScore, KidOptions, Moments,
    PrecisionRecall, Statistics, kernel_distance, precision_recall,
};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Fréchet distance of pooled features (Heusel et al. 2017).
    Fid,
    /// Fréchet distance of spatial features (Nash et al. 2021).
    Sfid,
    /// Inception score (Salimans et al. 2016).
    InceptionScore,
    /// Precision and recall (Kynkäänniemi et al. 2019).
    PrecisionRecall,
    /// Kernel distance (Bińkowski et al. 2018).
    Kid,
}

impl Metric {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fid => "FID",
            Self::Sfid => "sFID",
            Self::InceptionScore => "the Inception score",
            Self::PrecisionRecall => "precision and recall",
            Self::Kid => "KID",
        }
    }
}

/// What samples are compared with: features of pictures, statistics, or both, as Dhariwal & Nichol's references have them (the
/// statistics are then of more pictures than there are beside them).
#[derive(Debug)]
pub struct Reference {
    features: Option<FeatureSet>,
    statistics: Option<Statistics>,
}

impl Reference {
    /// A reference of pictures' features.
    pub fn of_features(features: FeatureSet) -> Self {
        Self { features: Some(features), statistics: None }
    }

    /// A reference of statistics, and features where there are some.
    pub fn of_statistics(statistics: Statistics, features: Option<FeatureSet>) -> Self {
        Self { features, statistics: Some(statistics) }
    }

    /// No reference, for what is measured of samples alone: the Inception score.
    pub fn none() -> Self {
        Self { features: None, statistics: None }
    }

    fn features(&self, metric: &'static str) -> Result<&FeatureSet, Error> {
        self.features.as_ref().ok_or(Error::NeedsPictures { metric })
    }
}

/// What was measured; what was not asked for is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Fréchet distance of pooled features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fid: Option<Estimate>,
    /// Fréchet distance of spatial features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sfid: Option<Estimate>,
    /// Inception score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inception_score: Option<Estimate>,
    /// Precision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Estimate>,
    /// Recall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<Estimate>,
    /// Kernel distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<Estimate>,
}

/// A metric that was not computed, for want of pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub metric: &'static str,
    /// Why not.
    pub why: String,
}

/// Measures `metrics` of `samples` against `reference`. `seed` decides which samples are left out together for intervals, which
/// share a split of the Inception score, KID's subsets, and which pictures are taken of a reference too large for all.
///
/// # Errors
/// [`Error::TooFewFor`] the first metric that there are too few pictures for; [`Error::Width`], [`Error::NeedsPictures`] and
/// [`Error::NeedsFeatures`] for what the reference or the network lacks.
pub fn evaluate(
    samples: &FeatureSet,
    reference: &Reference,
    metrics: &BTreeSet<Metric>,
    seed: u64,
) -> Result<Measured, Error> {
    let mut measured = Measured::default();
    for &metric in metrics {
        measure(samples, reference, metric, seed, &mut measured).map_err(|error| error.of_metric(metric))?;
    }
    Ok(measured)
}

/// As [`evaluate`], but metrics that there are too few pictures for are left out, and returned beside what was measured, as long
/// as another can be had.
///
/// # Errors
/// As [`evaluate`]; [`Error::TooFewFor`] only where nothing could be measured.
pub fn evaluate_possible(
    samples: &FeatureSet,
    reference: &Reference,
    metrics: &BTreeSet<Metric>,
    seed: u64,
) -> Result<(Measured, Vec<LeftOut>), Error> {
    let (mut measured, mut left_out, mut first) = (Measured::default(), Vec::new(), None);
    for &metric in metrics {
        match measure(samples, reference, metric, seed, &mut measured) {
            Ok(()) => {}
            Err(error @ Error::TooFew { .. }) => {
                left_out.push(LeftOut { metric: metric.name(), why: error.to_string() });
                first.get_or_insert(error.of_metric(metric));
            }
            Err(error) => return Err(error),
        }
    }
    match first {
        Some(error) if left_out.len() == metrics.len() => Err(error),
        _ => Ok((measured, left_out)),
    }
}

/// Adds one metric to those `measured`.
fn measure(
    samples: &FeatureSet,
    reference: &Reference,
    metric: Metric,
    seed: u64,
    measured: &mut Measured,
) -> Result<(), Error> {
    match metric {
        Metric::Fid => {
            let statistics = reference.statistics.as_ref().map(|statistics| &statistics.pooled);
            measured.fid = Some(frechet(samples, reference, statistics, Layer::Pooled, seed)?);
        }
        Metric::Sfid => {
            let missing = Error::NeedsFeatures { metric: "sFID", what: "mu_s and sigma_s" };
            let statistics = match &reference.statistics {
                Some(statistics) => Some(statistics.spatial.as_ref().ok_or(missing)?),
                None => None,
            };
            measured.sfid = Some(frechet(samples, reference, statistics, Layer::Spatial, seed)?);
        }
        Metric::InceptionScore => {
            let mut score = InceptionScore::new(samples.len(), InceptionScore::SPLIT, seed);
            for chunk in 0..samples.chunks() {
                let logits = samples.read_chunk(chunk)?.logits;
                score.push(&logits.ok_or(Error::NeedsFeatures { metric: "the Inception score", what: "logits" })?)?;
            }
            measured.inception_score = Some(score.estimate()?);
        }
        Metric::PrecisionRecall => {
            let reference = reference.features("precision and recall")?;
            let reference = reference.pooled_of(PrecisionRecall::MOST_REFERENCE, seed)?;
            let found = precision_recall(&samples.pooled()?, &reference, seed)?;
            (measured.precision, measured.recall) = (Some(found.precision), Some(found.recall));
        }
        Metric::Kid => {
            let reference = reference.features("KID")?.pooled_of(KidOptions::MOST, seed)?;
            let options = KidOptions { seed, ..KidOptions::default() };
            measured.kid = Some(kernel_distance(&samples.pooled_of(KidOptions::MOST, seed)?, &reference, options)?);
        }
    }
    Ok(())
}

/// Mean and covariance of the features of pictures: what a reference's file holds.
///
/// # Errors
/// [`Error::TooFew`], whatever reading meets.
pub fn statistics_of(features: &FeatureSet) -> Result<Statistics, Error> {
    let spatial = features.widths().spatial.map(|_| gaussian_of(features, Layer::Spatial)).transpose()?;
    Ok(Statistics { pooled: gaussian_of(features, Layer::Pooled)?, spatial, notes: None })
}

#[derive(Clone, Copy)]
enum Layer {
    Pooled,
    Spatial,
}

fn width_of(features: &FeatureSet, layer: Layer) -> Result<usize, Error> {
    match layer {
        Layer::Pooled => Ok(features.widths().pooled),
        Layer::Spatial => {
            let what = "spatial features, which only Inception has";
            features.widths().spatial.ok_or(Error::NeedsFeatures { metric: "sFID", what })
        }
    }
}

fn layer_of(features: &FeatureSet, chunk: usize, layer: Layer) -> Result<Tensor, Error> {
    let chunk = features.read_chunk(chunk)?;
    match layer {
        Layer::Pooled => Ok(chunk.pooled),
        Layer::Spatial => chunk.spatial.ok_or(Error::NeedsFeatures { metric: "sFID", what: "spatial features" }),
    }
}

fn gaussian_of(features: &FeatureSet, layer: Layer) -> Result<Gaussian, Error> {
    let mut moments = Moments::new(width_of(features, layer)?)?;
    for chunk in 0..features.chunks() {
        moments.push(&layer_of(features, chunk, layer)?)?;
    }
    moments.gaussian()
}

fn frechet(
    samples: &FeatureSet,
    reference: &Reference,
    statistics: Option<&Gaussian>,
    layer: Layer,
    seed: u64,
) -> Result<Estimate, Error> {
    let to = match statistics {
        Some(statistics) => Gaussian::new(statistics.mean().copy(), statistics.covariance().copy())?,
        None => gaussian_of(reference.features("FID")?, layer)?,
    };
    let width = width_of(samples, layer)?;
    if to.width() != width {
        return Err(Error::Width { samples: width, reference: to.width() });
    }
    let reference = FrechetReference::new(to)?;
    let mut stream = FidStream::new(&reference, samples.len(), seed)?;
    for chunk in 0..samples.chunks() {
        stream.push(&layer_of(samples, chunk, layer)?)?;
    }
    stream.estimate()
}
