//! What is compared, and the network that sees it: also what `train` measures with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dit_catalog::Kind;
use dit_eval::{DemoFeatures, FeatureNetwork, FeatureSet, Fit, Inception, Pictures, Preprocessing, Statistics};
use tch::Device;

use crate::{open::Library, progress::bar};

/// Names in the catalogue.
const INCEPTION: &str = "inception-fid";
const DEMO: &str = "features-fashion-demo";

/// What one side of the comparison is.
pub struct Input<'a> {
    pub path: &'a Path,
    pub pictures: Option<Pictures>,
    pub statistics: Option<Statistics>,
}

impl<'a> Input<'a> {
    pub fn open(path: &'a Path, fit: Fit) -> Result<Self> {
        let named_npz = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
        let statistics = if named_npz && path.is_file() { Statistics::read(path)? } else { None };
        // An archive of statistics need not hold pictures; where it does, they must be right.
        let without = statistics.is_some() && !Pictures::are_in(path)?;
        let pictures = if without { None } else { Some(Pictures::open(path, fit)?) };
        Ok(Self { path, pictures, statistics })
    }

    /// The pictures' features and hash, where there are pictures.
    pub fn features(
        &self,
        network: &dyn FeatureNetwork,
        cache: Option<&Path>,
        batch_size: usize,
    ) -> Result<Option<(FeatureSet, String)>> {
        let of = |pictures: &Pictures| features(self.path, pictures, network, cache, batch_size);
        self.pictures.as_ref().map(of).transpose()
    }
}

/// The network of this name or in this file.
pub fn network(name: &str, device: Device) -> Result<Box<dyn FeatureNetwork>> {
    let library = Library::discover()?;
    let (path, preprocessing) = match name {
        "demo" => return Ok(Box::new(DemoFeatures::load(&library.locate(DEMO, Kind::Features)?.path, device)?)),
        "inception" => (library.locate(INCEPTION, Kind::Features)?.path, Preprocessing::TensorFlow),
        "inception-pytorch-fid" => (library.locate(INCEPTION, Kind::Features)?.path, Preprocessing::PytorchFid),
        other => (library.locate(other, Kind::Features)?.path, Preprocessing::TensorFlow),
    };
    if DemoFeatures::is_in(&path)? {
        return Ok(Box::new(DemoFeatures::load(&path, device)?));
    }
    Ok(Box::new(Inception::load(&path, preprocessing, device)?))
}

/// The features of pictures, from the cache (by default beside the pictures) or computed now, and the pictures' hash.
pub fn features(
    path: &Path,
    pictures: &Pictures,
    network: &dyn FeatureNetwork,
    cache: Option<&Path>,
    batch_size: usize,
) -> Result<(FeatureSet, String)> {
    network.check_size(pictures.height(), pictures.width())?;
    let beside = || -> PathBuf {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".features");
        path.with_file_name(name)
    };
    let cache = cache.map_or_else(beside, Path::to_owned);
    FeatureSet::ensure_cache(&cache)?;
    let sha256 = pictures.sha256()?;
    let shown = bar("{msg} {wide_bar} {pos}/{len} {rate} pictures/s {eta} left");
    shown.set_message(path.display().to_string());
    let set = FeatureSet::extract(pictures, &sha256, network, &cache, batch_size, &mut |progress| {
        shown.set_length(progress.total as u64);
        shown.set_position(progress.done as u64);
    });
    shown.finish_and_clear();
    let set = set.with_context(|| format!("features of {}", path.display()))?;
    Ok((set, sha256))
}
