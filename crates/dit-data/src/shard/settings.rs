use dit_config::VaeConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Flips, MomentsLayout, Store};
use crate::CropRecipe;

/// Everything that decides the bytes of the shards. Two folders of the same settings hold the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Side of the cropped pictures, in pixels.
    pub image_size: usize,
    /// How pictures become square.
    pub crop: CropRecipe,
    /// Mirror images stored.
    pub flips: Flips,
    /// Element type of the moments.
    pub store: Store,
    /// Records of the source per shard, skipped ones counted.
    pub shard_size: usize,
    /// The codec.
    pub vae: VaeIdentity,
    /// The pictures.
    pub source: SourceIdentity,
    /// How the codec computed: kernels, and with them the last bits of a sum, depend on it.
    pub encoding: Encoding,
}

/// Which codec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeIdentity {
    /// As its user named it; not compared.
    pub name: String,
    /// SHA-256 of its weights' files.
    pub sha256: String,
    /// Its configuration, which has the scale and shift that the *raw* latents of the shards are to be given.
    pub config: VaeConfig,
}

/// Which pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceIdentity {
    /// What the source says of its contents.
    pub fingerprint: String,
    /// Records taken from its beginning.
    pub records: u64,
}

/// How the codec computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoding {
    /// `cpu` or `cuda`.
    pub device: String,
    /// Arithmetic.
    pub precision: EncodingPrecision,
    /// libtorch's threads.
    pub threads: usize,
    /// Pictures encoded at once: windows of this many records from the beginning of each shard, skipped ones replaced by
    /// black, so that no picture's neighbours ever change.
    pub batch_size: usize,
}

/// Arithmetic of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodingPrecision {
    /// binary32.
    Fp32,
    /// bfloat16.
    Bf16,
}

impl Settings {
    /// The shape of a record's moments; what is wrong where the codec cannot encode pictures of this size.
    ///
    /// # Errors
    /// A sentence.
    pub fn layout(&self) -> Result<MomentsLayout, String> {
        let factor = self.vae.config.downsampling();
        if !self.image_size.is_multiple_of(factor) {
            return Err(format!("the VAE takes sides that are multiples of {factor}, not {}", self.image_size));
        }
        let channels = self.vae.config.latent_channels;
        MomentsLayout::new(self.flips, channels, self.image_size / factor, self.store)
            .ok_or_else(|| format!("{channels} latent channels at {} pixels are out of bounds", self.image_size))
    }

    /// Shards that the records make.
    pub fn shard_count(&self) -> usize {
        self.source.records.div_ceil(self.shard_size.max(1) as u64) as usize
    }

    /// The first record of a shard, and how many records of the source it covers.
    pub fn shard_range(&self, index: usize) -> (u64, u64) {
        let size = self.shard_size as u64;
        let first = (index as u64).saturating_mul(size).min(self.source.records);
        (first, size.min(self.source.records - first))
    }

    /// Each setting in which `self` (what is there) differs from `asked`, in words; names are not compared.
    pub fn differences(&self, asked: &Self) -> Vec<String> {
        let named = Self { vae: VaeIdentity { name: asked.vae.name.clone(), ..self.vae.clone() }, ..self.clone() };
        let (Ok(there), Ok(asked)) = (serde_json::to_value(named), serde_json::to_value(asked)) else {
            return vec!["the settings cannot be compared".to_owned()];
        };
        let mut differences = Vec::new();
        compare("", &there, &asked, &mut differences);
        differences
    }

    /// A digest that binds a journal to these settings.
    pub(crate) fn digest(&self) -> [u8; 32] {
        // Serialising plain data into memory cannot fail; were it to, the journal is bound to nothing and ignored.
        Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).into()
    }
}

fn compare(name: &str, there: &Value, asked: &Value, differences: &mut Vec<String>) {
    match (there, asked) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                compare(&inner, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), differences);
            }
        }
        (a, b) if a != b => differences.push(format!("{name}: {a} there, {b} asked for")),
        _ => {}
    }
}
