//! What is compared, and the network that sees it: also what `train` measures with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dit_catalog::Kind;
use dit_eval::{
    DemoFeatures, Extraction, ExtractionProgress, FeatureNetwork, FeatureSet, Fit, Inception, Pictures, Preprocessing,
    Statistics,
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

/// What `name` is as seen from any folder: a path becomes a whole one, names and what is not there stay.
pub fn from_anywhere(name: &str) -> String {
    let (path, _) = meant(name);
    // Where it stands for a name of the catalogue, it is no path.
    let Some(form) = name.strip_suffix(path) else { return name.to_owned() };
    match Library::discover().and_then(|library| library.locate(path, Kind::Features)) {
        Ok(located) => format!("{form}{}", located.name),
        Err(_) => name.to_owned(),
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

/// Pictures whose features are to be had: their hash is known, and the place for what is missing is there.
pub struct Prepared<'a> {
    path: &'a Path,
    pub sha256: String,
    pub extraction: Extraction<'a>,
}

impl<'a> Prepared<'a> {
    /// Reads all pictures once, for their hash, and looks what the cache (by default beside the pictures) has of them.
    pub fn new(
        path: &'a Path,
        pictures: &'a Pictures,
        network: &'a dyn FeatureNetwork,
        cache: Option<&Path>,
    ) -> Result<Self> {
        network.check_size(pictures.height(), pictures.width())?;
        let cache = cache.map_or_else(|| beside(path), |cache| Ok(cache.to_owned()))?;
        FeatureSet::ensure_cache(&cache)?;
        let sha256 = pictures.sha256()?;
        let extraction = Extraction::prepare(pictures, &sha256, network, &cache)?;
        Ok(Self { path, sha256, extraction })
    }

    /// Their features, computed where they are missing, and the pictures' hash.
    pub fn run(self, batch_size: usize) -> Result<(FeatureSet, String)> {
        let Self { path, sha256, extraction } = self;
        let absent = extraction.absent();
        if absent > 0 {
            let megabytes = extraction.bytes() as f64 / 1e6;
            let (path, cache) = (path.display(), extraction.cache().display());
            say(format_args!("{path}: the features of {absent} pictures will take {megabytes:.1} MB in {cache}"));
        }
        let (bar, show) = picture_bar(path);
        let set = extraction.run(batch_size, &mut |progress| show(progress));
        bar.finish_and_clear();
        Ok((set.with_context(|| format!("features of {}", path.display()))?, sha256))
    }
}

/// `NAME.features` beside what is called NAME: beside a link, where it is one. `.` and `..` are called as the folder that they are.
fn beside(path: &Path) -> Result<PathBuf> {
    let place = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().with_context(|| format!("cannot open {}", path.display()))?,
    };
    let mut name = place.file_name().unwrap_or_default().to_os_string();
    name.push(".features");
    Ok(place.with_file_name(name))
}

/// The features of pictures, from the cache or computed now, and the pictures' hash.
pub fn features(
    path: &Path,
    pictures: &Pictures,
    network: &dyn FeatureNetwork,
    cache: Option<&Path>,
    batch_size: usize,
) -> Result<(FeatureSet, String)> {
    Prepared::new(path, pictures, network, cache)?.run(batch_size)
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

    #[test]
    fn paths_become_whole_and_names_stay() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
        let file = here.join("Cargo.toml").display().to_string();
        // Tests run in the package's folder.
        for (name, expected) in [
            ("./Cargo.toml", file.clone()),
            ("inception-pytorch-fid:./Cargo.toml", format!("inception-pytorch-fid:{file}")),
            ("./nothing.safetensors", "./nothing.safetensors".to_owned()),
        ] {
            assert_eq!(from_anywhere(name), expected);
        }
        for name in ["demo", "inception", "inception-pytorch-fid", "features-fashion-demo"] {
            assert_eq!(from_anywhere(name), name);
        }
    }
}
