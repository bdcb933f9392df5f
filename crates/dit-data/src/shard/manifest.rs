use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::Error;

/// The file's name in its folder.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Where skipped records are listed.
pub(crate) const SKIPPED: &str = "skipped.jsonl";

/// What the `format` field says.
const FORMAT: &str = "dit-latents";
/// The version that this code writes, and the only one that it reads.
const VERSION: u32 = 1;

/// What a folder of latents is, and which of its shards are finished.
///
/// Invariants of one that was read: its format and version are ours, the settings make sense, and the shards are in order,
/// each with the name, the first record and the extent that its index gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    /// What made it.
    pub settings: Settings,
    /// The names of the classes; a label is an index into them.
    pub class_names: Vec<String>,
    /// Finished shards, in order.
    pub shards: Vec<ShardEntry>,
    /// Totals; there once every shard is.
    pub summary: Option<Summary>,
}

/// One finished shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Its file's name.
    pub file: String,
    /// The first record of the source that it covers.
    pub first_record: u64,
    /// Records stored.
    pub records: u64,
    /// Records skipped.
    pub skipped: u64,
    /// Its file's length.
    pub bytes: u64,
    /// Its file's SHA-256.
    pub sha256: String,
    /// Per latent channel: the sum over records, flips and positions of a posterior draw's expectation.
    pub sums: Vec<f64>,
    /// Per latent channel: the same of the draw's square, mean² + variance.
    pub squares: Vec<f64>,
}

/// Totals of a finished folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Records stored.
    pub records: u64,
    /// Records skipped.
    pub skipped: u64,
    /// SHA-256 of `skipped.jsonl`.
    pub skipped_sha256: String,
    /// Records of each class.
    pub class_counts: Vec<u64>,
    /// Per channel: the mean of raw latents drawn from the posteriors.
    pub mean: Vec<f64>,
    /// Per channel: their standard deviation.
    pub std: Vec<f64>,
}

/// A record that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Its place in the source.
    pub record: u64,
    /// Its name.
    pub key: String,
    /// Why.
    pub reason: String,
}

impl Manifest {
    /// One without shards.
    pub(crate) fn new(settings: Settings, class_names: Vec<String>) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, settings, class_names, shards: Vec::new(), summary: None }
    }

    /// Whether `folder` has the file that makes it one of latents.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file()
    }

    /// Reads and checks the manifest of `folder`, finished or not.
    ///
    /// # Errors
    /// [`Error::NotLatents`] where there is none or it is not sound; [`Error::Io`].
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let not_latents = |problem: String, help| Error::NotLatents { path: folder.to_owned(), problem, help };
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(not_latents(
                    format!("it has no {MANIFEST}"),
                    "pass the folder that `dit-cli precompute-latents` wrote",
                ));
            }
            other => other.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?,
        };
        let damaged = |problem: String| not_latents(format!("{MANIFEST}: {problem}"), "write to another folder");
        // The version first: another one may have other fields.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if head.format != FORMAT || head.version != VERSION {
            return Err(not_latents(
                format!(
                    "{MANIFEST} is of format {} version {}, expected {FORMAT} {VERSION}",
                    head.format, head.version
                ),
                "use the version of this program that wrote it",
            ));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        manifest.check().map_err(damaged)?;
        Ok(manifest)
    }

    /// The text of the file.
    pub(crate) fn to_json(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    fn check(&self) -> Result<(), String> {
        let layout = self.settings.layout()?;
        if self.settings.shard_size == 0 || self.settings.encoding.batch_size == 0 {
            return Err("shards or batches of 0 records".to_owned());
        }
        let mut after = 0;
        for shard in &self.shards {
            let index = (shard.first_record / self.settings.shard_size as u64) as usize;
            let (first, covered) = self.settings.shard_range(index);
            let sound = index >= after
                && shard.file == shard_name(index)
                && shard.first_record == first
                && covered > 0
                && shard.records.checked_add(shard.skipped) == Some(covered)
                && shard.sums.len() == layout.channels()
                && shard.squares.len() == layout.channels();
            if !sound {
                return Err(format!("the entry of {:?} contradicts the settings", shard.file));
            }
            after = index + 1;
        }
        match &self.summary {
            Some(_) if self.shards.len() != self.settings.shard_count() => {
                Err(format!("{} shards of {}", self.shards.len(), self.settings.shard_count()))
            }
            Some(summary)
                if summary.records != self.shards.iter().map(|shard| shard.records).sum::<u64>()
                    || summary.class_counts.len() != self.class_names.len() =>
            {
                Err("the summary contradicts the shards".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl ShardEntry {
    /// Its place among the shards of a folder with this `shard_size`.
    pub(crate) fn index(&self, shard_size: usize) -> usize {
        (self.first_record / shard_size.max(1) as u64) as usize
    }
}

/// The file of shard `index`: names sort as numbers do.
pub(crate) fn shard_name(index: usize) -> String {
    format!("shard-{index:06}.safetensors")
}
