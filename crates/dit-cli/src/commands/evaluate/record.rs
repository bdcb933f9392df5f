//! What an evaluation says: enough to make a table from, and to know what was compared.

use std::path::PathBuf;

use anyhow::Result;
use dit_eval::{Estimate, Measured};
use serde::Serialize;

use super::{Input, label_policy};

/// What `--json` prints.
#[derive(Serialize)]
pub struct Record {
    pub software: &'static str,
    pub samples: Side,
    pub reference: Side,
    pub features: Network,
    pub metrics: Measured,
    /// Of every interval.
    pub confidence: f64,
    pub seed: u64,
    pub warnings: Vec<String>,
    pub seconds_features: f64,
    pub seconds_total: f64,
    pub peak_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
pub struct Network {
    pub name: String,
    pub sha256: String,
    pub width: usize,
}

/// One side of the comparison.
#[derive(Serialize)]
pub struct Side {
    path: PathBuf,
    /// Of the pictures; of the file, where only its statistics are used.
    sha256: String,
    /// Pictures; none if there are statistics only.
    count: Option<usize>,
    height: Option<usize>,
    width: Option<usize>,
    label_policy: String,
    statistics: bool,
}

impl Side {
    pub fn new(input: &Input, sha256: &str) -> Result<Self> {
        let pictures = input.pictures.as_ref();
        let policy = pictures.map(|pictures| label_policy::of(input.path, pictures)).transpose()?;
        Ok(Self {
            path: input.path.to_owned(),
            sha256: sha256.to_owned(),
            count: pictures.map(dit_eval::Pictures::len),
            height: pictures.map(dit_eval::Pictures::height),
            width: pictures.map(dit_eval::Pictures::width),
            label_policy: policy.unwrap_or("unknown".to_owned()),
            statistics: input.statistics.is_some(),
        })
    }

    fn text(&self) -> String {
        let count = self.count.map_or("statistics".to_owned(), |count| format!("{count} pictures"));
        let statistics = if self.statistics && self.count.is_some() { " and statistics" } else { "" };
        let short: String = self.sha256.chars().take(12).collect();
        format!("{}: {count}{statistics}, sha256 {short}…, labels {}", self.path.display(), self.label_policy)
    }
}

impl Record {
    pub fn text(&self) -> String {
        let short: String = self.features.sha256.chars().take(12).collect();
        let mut text = format!(
            "samples    {}\nreference  {}\nfeatures   {} ({} wide, sha256 {short}…)\n",
            self.samples.text(),
            self.reference.text(),
            self.features.name,
            self.features.width
        );
        let Measured { fid, sfid, inception_score, precision, recall, kid } = &self.metrics;
        let rows: [(&str, &Option<Estimate>, usize); 6] = [
            ("FID", fid, 4),
            ("sFID", sfid, 4),
            ("IS", inception_score, 4),
            ("precision", precision, 4),
            ("recall", recall, 4),
            ("KID", kid, 6),
        ];
        for (name, estimate, digits) in rows {
            if let Some(Estimate { value, low, high, .. }) = estimate {
                text.push_str(&format!("{name:<11}{value:.digits$}  [{low:.digits$}, {high:.digits$}]\n"));
            }
        }
        text.push_str("intervals: 95 %, over the draw of the samples\n");
        text
    }
}
