//! What is compared, and the network that sees it: also what `train` measures with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dit_catalog::Kind;
use dit_eval::{
    DemoFeatures, ExtractionProgress, FeatureNetwork, FeatureSet, Fit, Inception, Pictures, Preprocessing, Statistics,
};
use indicatif::ProgressBar;
use tch::Device;

use crate::{open::Library, progress::bar, speak::say, usage::wrong_usage};

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
        // By its name or its content, so that what is named npz and is none is told.
        let named_npz = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
        let archive = path.is_file() && (named_npz || Pictures::are_archived(path)?);
        let statistics = if archive { Statistics::read(path)? } else { None };
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
    let (name, preprocessing) = meant(name);
    let path = Library::discover()?.locate(name, Kind::Features)?.path;
    match (DemoFeatures::is_in(&path)?, preprocessing) {
        (true, Preprocessing::TensorFlow) => Ok(Box::new(DemoFeatures::load(&path, device)?)),
        (true, Preprocessing::PytorchFid) => {
            wrong_usage!("--features {OTHER_FORM}{name}: it is no Inception\n  help: pass --features {name}")
        }
        (false, preprocessing) => Ok(Box::new(Inception::load(&path, preprocessing, device)?)),
    }
}

/// What stands before a file of Inception's weights whose pictures are prepared as pytorch-fid does.
const OTHER_FORM: &str = "inception-pytorch-fid:";

/// The catalogue's name or the path that `name` means, and how pictures are prepared for it, if it is an Inception.
fn meant(name: &str) -> (&str, Preprocessing) {
    match (name, name.strip_prefix(OTHER_FORM)) {
        ("demo", _) => (DEMO, Preprocessing::TensorFlow),
        ("inception", _) => (INCEPTION, Preprocessing::TensorFlow),
        ("inception-pytorch-fid", _) => (INCEPTION, Preprocessing::PytorchFid),
        (_, Some(path)) => (path, Preprocessing::PytorchFid),
        (path, None) => (path, Preprocessing::TensorFlow),
    }
}

/// A bar over pictures, and what moves it.
pub fn picture_bar(path: &Path) -> (ProgressBar, impl Fn(ExtractionProgress)) {
    let bar = bar("{msg} {wide_bar} {pos}/{len} {rate} pictures/s {eta} left");
    bar.set_message(path.display().to_string());
    let shown = bar.clone();
    (bar, move |progress: ExtractionProgress| {
        shown.set_length(progress.total as u64);
        shown.set_position(progress.done as u64);
    })
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
    let (bar, show) = picture_bar(path);
    let set = FeatureSet::extract(pictures, &sha256, network, &cache, batch_size, &mut |progress| {
        let absent = progress.total - progress.resumed;
        if progress.done == progress.resumed && absent > 0 {
            let megabytes = absent as f64 * network.widths().bytes() as f64 / 1e6;
            let (path, cache) = (path.display(), cache.display());
            say(format_args!("{path}: the features of {absent} pictures will take {megabytes:.1} MB in {cache}"));
        }
        show(progress);
    });
    bar.finish_and_clear();
    let set = set.with_context(|| format!("features of {}", path.display()))?;
    Ok((set, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_file_and_how_its_pictures_are_prepared() {
        use Preprocessing::{PytorchFid, TensorFlow};
        for (name, expected) in [
            ("demo", (DEMO, TensorFlow)),
            ("inception", (INCEPTION, TensorFlow)),
            ("inception-pytorch-fid", (INCEPTION, PytorchFid)),
            ("folder/weights.pth", ("folder/weights.pth", TensorFlow)),
            ("inception-pytorch-fid:folder/weights.pth", ("folder/weights.pth", PytorchFid)),
        ] {
            assert_eq!(meant(name), expected);
        }
    }
}
