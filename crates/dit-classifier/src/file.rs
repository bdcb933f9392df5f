use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dit_model::Initialization;
use dit_weights::{NonFinite, SafetensorsFile, TchSource, load_into, write_safetensors};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::{Classifier, ClassifierSpec, Error};

/// The key of the metadata that makes a safetensors file a classifier's.
const KEY: &str = "dit_classifier";
const VERSION: u32 = 1;

/// What a classifier's file says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    version: u32,
    /// Its geometry.
    pub spec: ClassifierSpec,
    /// SHA-256 of the codec whose latents it was trained on.
    pub vae_sha256: String,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Steps it was trained for.
    pub steps: u64,
}

impl About {
    /// What is to be said of a classifier of `spec`.
    pub fn new(spec: ClassifierSpec, vae_sha256: String, class_names: Vec<String>, steps: u64) -> Self {
        Self { version: VERSION, spec, vae_sha256, class_names, steps }
    }
}

impl Classifier {
    /// Writes the weights in f16, and `about` with them. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Weights`] where it cannot be written.
    pub fn save(&self, path: &Path, about: &About) -> Result<(), Error> {
        let halves =
            self.store().variables().into_iter().map(|(name, tensor)| (name, tensor.detach().to_kind(Kind::Half)));
        // No map with keys other than strings and no fallible serializer is in it.
        let text = serde_json::to_string(about).unwrap_or_default();
        Ok(write_safetensors(path, &TchSource::new(halves)?, &BTreeMap::from([(KEY.to_owned(), text)]))?)
    }

    /// Whether the file at `path` says that it holds a classifier.
    pub fn is_in(path: &Path) -> bool {
        SafetensorsFile::open(path).is_ok_and(|file| file.metadata().contains_key(KEY))
    }

    /// Loads what [`save`](Self::save) wrote, strictly, for inference: none of its weights trainable.
    ///
    /// # Errors
    /// [`Error::NotAClassifier`] for other files, [`Error::Weights`] for damaged ones.
    pub fn load(path: &Path, device: Device) -> Result<(Self, About), Error> {
        let file = SafetensorsFile::open(path)?;
        let refuse = |problem: String| Error::NotAClassifier { path: PathBuf::from(path), problem };
        let text = file.metadata().get(KEY).ok_or_else(|| refuse(format!("its metadata has no `{KEY}`")))?;
        let about: About = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if about.version != VERSION {
            return Err(refuse(format!("it is of version {}; this program reads version {VERSION}", about.version)));
        }
        let mut classifier = Self::with(&about.spec, Initialization::Empty, device)?;
        load_into(classifier.store_mut(), &file, NonFinite::Reject)?;
        classifier.store_mut().freeze();
        Ok((classifier, about))
    }
}
