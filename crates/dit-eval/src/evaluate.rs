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

/// A metric that was not computed, for want of pictures or of statistics that fit.
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
/// [`Error::NeedsFeatures`] for what the reference or the network lacks: all of it [`Sides`](crate::Sides) tells before.
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
            let samples = samples.pooled_of(PrecisionRecall::MOST_SAMPLES, seed)?;
            let found = precision_recall(&samples, &reference, seed)?;
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

impl Layer {
    /// The Fréchet distance of these features.
    fn metric(self) -> Metric {
        match self {
            Self::Pooled => Metric::Fid,
            Self::Spatial => Metric::Sfid,
        }
    }
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
        None => gaussian_of(reference.features(layer.metric().name())?, layer)?,
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use tch::Kind;

    use super::*;
    use crate::input::{npy_of, zip};
    use crate::{Extraction, FeatureNetwork, Features, Fit, Pictures, Widths};

    /// Of pictures of two pixels: the first is the pooled features, the second the spatial ones.
    struct Pixels;

    impl FeatureNetwork for Pixels {
        fn name(&self) -> &str {
            "pixels"
        }

        fn sha256(&self) -> &str {
            ""
        }

        fn widths(&self) -> Widths {
            Widths { pooled: 3, spatial: Some(3), logits: None }
        }

        fn check_size(&self, _: usize, _: usize) -> Result<(), Error> {
            Ok(())
        }

        fn extract(&self, pictures: &Tensor) -> Result<Features, Error> {
            let pixels = pictures.f_view([-1, 2, 3])?.f_to_kind(Kind::Float)?;
            Ok(Features { pooled: pixels.f_select(1, 0)?, spatial: Some(pixels.f_select(1, 1)?), logits: None })
        }
    }

    /// As many pictures of two pixels: random, the same for each seed, then moved by so much.
    fn pictures(count: usize, seed: usize, moved: [[u8; 3]; 2]) -> Vec<u8> {
        let level = |at: usize| (((at * 7919 + seed * 104_729) * 2_654_435_761) >> 16) as u8 % 100;
        (0..count * 6).map(|at| level(at) + moved[at / 3 % 2][at % 3]).collect()
    }

    fn array(pictures: &[u8]) -> (String, Vec<u8>) {
        ("arr_0.npy".to_owned(), npy_of("|u1", &[pictures.len() / 6, 1, 2, 3], pictures))
    }

    fn features(path: &Path) -> FeatureSet {
        let pictures = Pictures::open(path, Fit::AsIs).unwrap();
        let sha256 = pictures.sha256().unwrap();
        let extraction = Extraction::prepare(&pictures, &sha256, &Pixels, &path.with_extension("features")).unwrap();
        extraction.run(100, &mut |_| ()).unwrap()
    }

    fn measured(samples: &FeatureSet, reference: &Reference, metrics: &[Metric]) -> Measured {
        evaluate(samples, reference, &metrics.iter().copied().collect(), 0).unwrap()
    }

    #[track_caller]
    fn check(found: Option<Estimate>, expected: f64) {
        let found = found.unwrap();
        assert!((found.value - expected).abs() < 1e-9 * (1.0 + expected), "{found:?}, expected {expected}");
    }

    #[test]
    fn each_frechet_distance_is_of_its_own_layer() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, moved: [[u8; 3]; 2]| {
            let path = folder.path().join(name);
            fs::write(&path, zip(&[array(&pictures(200, 1, moved))])).unwrap();
            features(&path)
        };
        let samples = set("samples.npz", [[0; 3], [3, 4, 12]]);
        let reference = Reference::of_features(set("reference.npz", [[2, 0, 0], [0; 3]]));
        // Means alone differ: by 2, and by 3, 4 and 12.
        let found = measured(&samples, &reference, &[Metric::Fid, Metric::Sfid]);
        check(found.fid, 4.0);
        check(found.sfid, 169.0);
        let missing = evaluate(&samples, &Reference::none(), &BTreeSet::from([Metric::Sfid]), 0).unwrap_err();
        assert!(matches!(missing, Error::NeedsPictures { metric: "sFID" }), "{missing}");
    }

    /// The references of Dhariwal & Nichol: pictures, and statistics that are of more pictures than those, in one file.
    #[test]
    fn statistics_and_pictures_in_one_file_each_serve_their_metrics() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let write = |name: &str, pictures: &[u8]| fs::write(here.join(name), zip(&[array(pictures)])).unwrap();
        let shown = pictures(60, 7, [[1, 1, 1], [0; 3]]);
        write("samples.npz", &pictures(200, 1, [[0; 3]; 2]));
        write("all.npz", &pictures(300, 1, [[0, 20, 0], [5, 0, 0]]));
        write("shown.npz", &shown);
        let of_all = statistics_of(&features(&here.join("all.npz"))).unwrap();
        of_all.write(&here.join("statistics.npz")).unwrap();
        let spatial = of_all.spatial.as_ref().unwrap();
        let members = [
            ("mu", of_all.pooled.mean()),
            ("sigma", of_all.pooled.covariance()),
            ("mu_s", spatial.mean()),
            ("sigma_s", spatial.covariance()),
        ];
        let mut members: Vec<_> = members
            .map(|(name, x)| {
                let values = Vec::<f64>::try_from(&x.flatten(0, -1)).unwrap();
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let shape: Vec<usize> = x.size().iter().map(|&extent| extent as usize).collect();
                (format!("{name}.npy"), npy_of("<f8", &shape, &bytes))
            })
            .into();
        members.push(array(&shown));
        let both = here.join("both.npz");
        fs::write(&both, zip(&members)).unwrap();

        let samples = features(&here.join("samples.npz"));
        let all = [Metric::Fid, Metric::Sfid, Metric::PrecisionRecall, Metric::Kid];
        let statistics = |name: &str| Statistics::read(&here.join(name)).unwrap().unwrap();
        let found = measured(&samples, &Reference::of_statistics(statistics("both.npz"), Some(features(&both))), &all);
        let by_statistics = Reference::of_statistics(statistics("statistics.npz"), None);
        let by_statistics = measured(&samples, &by_statistics, &all[..2]);
        let by_pictures = measured(&samples, &Reference::of_features(features(&here.join("shown.npz"))), &all);
        assert_eq!((found.fid, found.sfid), (by_statistics.fid, by_statistics.sfid));
        assert_eq!(
            (found.precision, found.recall, found.kid),
            (by_pictures.precision, by_pictures.recall, by_pictures.kid)
        );
        // They do differ.
        assert_ne!((found.fid, found.sfid), (by_pictures.fid, by_pictures.sfid));
    }
}
