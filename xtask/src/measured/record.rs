//! What was measured, of what, and how.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How samples are drawn, decoded and measured, by number: raised whenever the same files would give other numbers, so that what
/// was measured before is measured again. The codec in the repository is part of it. The first's recall had the interval of a
/// fraction of independent pictures, and its FID lost small variances.
pub const METHOD: u32 = 2;

/// How samples are drawn. The classes are equally frequent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// Samples of each class.
    pub per_class: u64,
    pub sampler: String,
    pub steps: String,
    pub cfg_scale: f64,
}

/// A number and its 95 % interval over the draw of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// `12.34 ± 0.21`.
    pub fn text(&self, scale: f64, digits: usize) -> String {
        let half = scale * (self.high - self.low) / 2.0;
        format!("{:.digits$} ± {half:.digits$}", scale * self.value)
    }
}

/// What was measured against the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    pub fid: Estimate,
    pub kid: Estimate,
    pub precision: Estimate,
    pub recall: Estimate,
}

/// What is measured, so that a record is never taken for another's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// SHA-256 of the checkpoint, or of the pictures' file.
    pub sha256: String,
    pub draw: Option<Draw>,
    /// Whether they are what the codec makes of the pictures.
    #[serde(default)]
    pub reconstructed: bool,
    /// SHA-256 of the reference's file.
    pub reference: String,
    /// [`METHOD`]; the first one's records do not tell it.
    #[serde(default = "first_method")]
    pub method: u32,
}

fn first_method() -> u32 {
    1
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    pub subject: Subject,
    pub quality: Quality,
    /// All that `dit-cli evaluate --json` said.
    pub evaluation: serde_json::Value,
}

impl Record {
    /// Whether it is of `subject` in the features of the network with this hash.
    pub fn is_of(&self, subject: &Subject, features_sha256: &str) -> bool {
        self.subject == *subject && self.evaluation["features"]["sha256"] == features_sha256
    }

    /// The record in a file, where there is one that can be read.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        // Under another name first, so that a record is whole.
        let half = path.with_extension("json.half");
        fs::write(&half, serde_json::to_string_pretty(self)?)
            .and_then(|()| fs::rename(&half, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_written_with_their_half_interval() {
        let estimate = Estimate { value: 0.012_34, low: 0.011_34, high: 0.013_34 };
        assert_eq!(estimate.text(1000.0, 2), "12.34 ± 1.00");
    }
}
