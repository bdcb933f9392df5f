//! What a checkpoint that we write says about itself, in the metadata of its safetensors file.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

use dit_config::{DitConfig, DitSpec, Process, VaeConfig, VaeSpec};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Error;

/// Version of the keys below; a file of a later version is refused.
const FORMAT: u32 = 1;

const FORMAT_KEY: &str = "dit.format";
const KIND: &str = "dit.kind";
const CONFIG: &str = "dit.config";
/// The diffusion process; absent, it is the original's.
pub(crate) const PROCESS: &str = "dit.process";
const CLASSES: &str = "dit.classes";
const ORIGIN_NAME: &str = "dit.origin.name";
const ORIGIN_SHA256: &str = "dit.origin.sha256";
const CODEC_NAME: &str = "dit.codec.name";
const CODEC_SHA256: &str = "dit.codec.sha256";
const WEIGHTS: &str = "dit.weights";
const STEP: &str = "dit.step";
/// What our keys begin with.
const PREFIX: &str = "dit.";
/// Other programs that read safetensors ask for this one.
const FRAMEWORK: (&str, &str) = ("format", "pt");

/// Which of a training run's two sets of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightsKind {
    /// Their exponential moving average: what is sampled from.
    Ema,
    /// The weights that the optimizer moves.
    Raw,
}

impl WeightsKind {
    /// The name in metadata and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ema => "ema",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for WeightsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The configuration of whichever network a file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelConfig {
    /// A transformer.
    Dit(DitConfig),
    /// A latent codec.
    Vae(VaeConfig),
}

/// The file that weights came from, before any conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its name, without folders.
    pub name: String,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
}

/// The codec of latents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codec {
    /// Of the catalogue, or of its file or folder, without those that it lies in.
    pub name: String,
    /// Of its weights ([`VaeCheckpoint::sha256`](crate::VaeCheckpoint::sha256)), in lower-case hexadecimal.
    pub sha256: String,
}

impl Codec {
    /// The codec at `place`, a name of the catalogue or a path. Of a path the last part is kept: a checkpoint is copied and
    /// published, and the rest says nothing elsewhere, but much about its owner.
    pub fn new(place: &str, sha256: String) -> Self {
        let name = Path::new(place).file_name().and_then(|name| name.to_str()).unwrap_or(place);
        Self { name: name.to_owned(), sha256 }
    }
}

/// What a checkpoint says about itself. Every part may be absent: files of other programs carry none of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// The network's configuration.
    pub config: Option<ModelConfig>,
    /// The diffusion process that a transformer was trained on; without, the original's.
    pub process: Option<Process>,
    /// A name for each class.
    pub class_names: Option<Vec<String>>,
    /// Where the weights came from.
    pub origin: Option<Origin>,
    /// The codec whose latents a transformer was trained on. Of a name without a hash nothing is known: it is no codec.
    pub codec: Option<Codec>,
    /// Which weights of a training run.
    pub weights: Option<WeightsKind>,
    /// Optimizer steps taken.
    pub step: Option<u64>,
    /// All other keys, as they are.
    pub other: BTreeMap<String, String>,
}

impl Metadata {
    /// The text to write into a safetensors file. Where a key of `other` is one of the parts before it, the part counts.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let mut map = self.other.clone();
        let mut put = |key: &str, value: String| {
            map.insert(key.to_owned(), value);
        };
        put(FRAMEWORK.0, FRAMEWORK.1.to_owned());
        put(FORMAT_KEY, FORMAT.to_string());
        match &self.config {
            Some(ModelConfig::Dit(config)) => {
                put(KIND, "dit".to_owned());
                put(CONFIG, json!(DitSpec::from(config.clone())).to_string());
            }
            Some(ModelConfig::Vae(config)) => {
                put(KIND, "vae".to_owned());
                put(CONFIG, json!(VaeSpec::from(config.clone())).to_string());
            }
            None => {}
        }
        if let Some(process) = &self.process {
            put(PROCESS, json!(process).to_string());
        }
        if let Some(names) = &self.class_names {
            put(CLASSES, json!(names).to_string());
        }
        if let Some(Origin { name, sha256 }) = &self.origin {
            put(ORIGIN_NAME, name.clone());
            put(ORIGIN_SHA256, sha256.clone());
        }
        if let Some(Codec { name, sha256 }) = &self.codec {
            put(CODEC_NAME, name.clone());
            put(CODEC_SHA256, sha256.clone());
        }
        if let Some(weights) = self.weights {
            put(WEIGHTS, weights.name().to_owned());
        }
        if let Some(step) = self.step {
            put(STEP, step.to_string());
        }
        map
    }

    /// Reads what [`to_map`](Self::to_map) wrote; keys that it does not know land in `other`. `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Metadata`] names the key whose value is not understood; a file of a later version of this format is one.
    pub fn from_map(path: impl AsRef<Path>, map: &BTreeMap<String, String>) -> Result<Self, Error> {
        Self::read(path.as_ref(), map)
    }

    fn read(path: &Path, map: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut other = map.clone();
        other.remove(FRAMEWORK.0);
        let mut reader = Reader { path, other };
        if let Some(format) = reader.parse::<u32>(FORMAT_KEY)?
            && format > FORMAT
        {
            let problem = format!("version {format} is newer than this program, which reads up to {FORMAT}; update it");
            return Err(reader.problem(FORMAT_KEY, problem));
        }
        let config = match reader.take(KIND).as_deref() {
            Some("dit") => reader.config(DitConfig::new)?.map(ModelConfig::Dit),
            Some("vae") => reader.config(VaeConfig::new)?.map(ModelConfig::Vae),
            Some(kind) => return Err(reader.problem(KIND, format!("'{kind}', expected dit or vae"))),
            None => None,
        };
        let weights = match reader.take(WEIGHTS).as_deref() {
            Some("ema") => Some(WeightsKind::Ema),
            Some("raw") => Some(WeightsKind::Raw),
            Some(kind) => return Err(reader.problem(WEIGHTS, format!("'{kind}', expected ema or raw"))),
            None => None,
        };
        Ok(Self {
            config,
            process: reader.json(PROCESS)?,
            class_names: reader.json(CLASSES)?,
            origin: reader
                .take(ORIGIN_NAME)
                .map(|name| Origin { name, sha256: reader.take(ORIGIN_SHA256).unwrap_or_default() }),
            codec: match (reader.take(CODEC_NAME), reader.take(CODEC_SHA256)) {
                (Some(name), Some(sha256)) => Some(Codec { name, sha256 }),
                _ => None,
            },
            weights,
            step: reader.parse(STEP)?,
            other: reader.other,
        })
    }
}

/// Whether `key` is, or may become, one of those that [`Metadata::to_map`] writes by itself.
pub(crate) fn is_reserved(key: &str) -> bool {
    key == FRAMEWORK.0 || key.starts_with(PREFIX)
}

/// Takes known keys out of a file's metadata.
struct Reader<'a> {
    path: &'a Path,
    other: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn take(&mut self, key: &str) -> Option<String> {
        self.other.remove(key)
    }

    fn problem(&self, key: &'static str, problem: String) -> Error {
        Error::Metadata { path: self.path.to_owned(), key, problem }
    }

    fn parse<T: FromStr>(&mut self, key: &'static str) -> Result<Option<T>, Error> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let value = text.parse().map_err(|_| self.problem(key, format!("'{text}' is not a whole number")))?;
        Ok(Some(value))
    }

    fn json<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<Option<T>, Error> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let value = serde_json::from_str(&text).map_err(|error| self.problem(key, error.to_string()))?;
        Ok(Some(value))
    }

    fn config<S: DeserializeOwned, C, E: fmt::Display>(
        &mut self,
        check: impl FnOnce(S) -> Result<C, E>,
    ) -> Result<Option<C>, Error> {
        let Some(spec) = self.json(CONFIG)? else { return Ok(None) };
        let config = check(spec).map_err(|error| self.problem(CONFIG, error.to_string()))?;
        Ok(Some(config))
    }
}

#[cfg(test)]
mod tests {
    use dit_config::Sigma;

    use super::*;

    fn full() -> Metadata {
        Metadata {
            config: Some(ModelConfig::Dit("DiT-S/8".parse().unwrap())),
            process: Some(Process { steps: 500, ..Process::original(Sigma::Learned) }),
            class_names: Some(vec!["tench".to_owned(), "goldfish, \"Carassius\"".to_owned()]),
            origin: Some(Origin { name: "a.pt".to_owned(), sha256: "00ff".to_owned() }),
            codec: Some(Codec { name: "sd-vae".to_owned(), sha256: "11ee".to_owned() }),
            weights: Some(WeightsKind::Ema),
            step: Some(400_000),
            other: BTreeMap::from([("note".to_owned(), "mine".to_owned())]),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let vae = Metadata {
            config: Some(ModelConfig::Vae(VaeConfig::new(VaeSpec::default()).unwrap())),
            ..Metadata::default()
        };
        for metadata in [Metadata::default(), full(), vae] {
            assert_eq!(Metadata::from_map("x", &metadata.to_map()).unwrap(), metadata);
        }
    }

    #[test]
    fn a_codec_is_known_by_name_and_hash_and_not_by_where_it_lay() {
        for place in ["sd-vae", "/home/ada/models/sd-vae", "models/sd-vae/"] {
            assert_eq!(Codec::new(place, "11ee".to_owned()), full().codec.unwrap(), "{place}");
        }
        for key in [CODEC_NAME, CODEC_SHA256] {
            let mut map = full().to_map();
            map.remove(key);
            assert_eq!(Metadata::from_map("x", &map).unwrap(), Metadata { codec: None, ..full() });
        }
    }

    #[test]
    fn every_key_of_ours_is_reserved_and_no_other() {
        for key in full().to_map().into_keys() {
            assert_eq!(is_reserved(&key), key != "note", "{key}");
        }
        assert!(is_reserved("dit.later") && !is_reserved("dit") && !is_reserved("dits") && !is_reserved("formats"));
    }

    #[track_caller]
    fn check_refused(key: &'static str, value: &str, says: &str) {
        let mut map = full().to_map();
        assert!(map.insert(key.to_owned(), value.to_owned()).is_some(), "{key} is not a key");
        let error = Metadata::from_map("x", &map).unwrap_err();
        assert!(matches!(&error, Error::Metadata { key: named, .. } if *named == key), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn a_value_that_is_not_understood_is_refused_by_its_key() {
        check_refused(FORMAT_KEY, "2", "newer");
        check_refused(FORMAT_KEY, "one", "whole number");
        check_refused(KIND, "gan", "expected dit or vae");
        check_refused(CONFIG, "{", "EOF");
        check_refused(CONFIG, "{}", "missing field");
        check_refused(CLASSES, "{}", "sequence");
        let process = |schedule: &str, steps: &str| {
            format!(r#"{{"schedule": "{schedule}", "steps": {steps}, "predict": "v", "sigma": "learned"}}"#)
        };
        check_refused(PROCESS, &process("sigmoid", "1000"), "unknown variant `sigmoid`, expected `linear` or `cosine`");
        check_refused(PROCESS, &process("linear", "-1"), "-1");
        check_refused(PROCESS, "{}", "missing field");
        check_refused(WEIGHTS, "best", "expected ema or raw");
        check_refused(STEP, "-1", "whole number");
        let mut spec = DitSpec::from("DiT-S/8".parse::<DitConfig>().unwrap());
        spec.heads = 7;
        check_refused(CONFIG, &json!(spec).to_string(), "7 heads do not divide");
    }
}
