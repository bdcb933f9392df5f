//! What an evaluation says: enough to make a table from, and to know what was compared.

use anyhow::Result;
use dit_eval::{Estimate, LeftOut, Measured};
use serde::Serialize;

use super::{Input, label_policy, reconstruction::Codec};

/// What `--json` prints.
#[derive(Serialize)]
pub struct Record {
    pub software: &'static str,
    pub samples: Side,
    /// The codec that the samples went through before they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstructed_by: Option<Codec>,
    pub reference: Side,
    pub features: Network,
    pub metrics: Measured,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
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
    path: String,
    /// Of the pictures; of the file, where only its statistics are used.
    sha256: String,
    /// Pictures; where there are statistics only, of how many they are, if they say so.
    count: Option<usize>,
    height: Option<usize>,
    width: Option<usize>,
    label_policy: String,
    statistics: bool,
    /// Hash of the pictures whose statistics they are, if they say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics_of: Option<String>,
}

impl Side {
    pub fn new(input: &Input, sha256: &str) -> Result<Self> {
        let pictures = input.pictures.as_ref();
        let notes = input.statistics.as_ref().and_then(|statistics| statistics.notes.as_ref());
        let policy = pictures.map(|pictures| label_policy::of(input.path, pictures)).transpose()?;
        Ok(Self {
            path: input.path.display().to_string(),
            sha256: sha256.to_owned(),
            count: pictures.map(dit_eval::Pictures::len).or(notes.map(|notes| notes.count)),
            height: pictures.map(dit_eval::Pictures::height),
            width: pictures.map(dit_eval::Pictures::width),
            label_policy: policy.unwrap_or("unknown".to_owned()),
            statistics: input.statistics.is_some(),
            statistics_of: notes.map(|notes| notes.pictures.clone()),
        })
    }

    fn text(&self) -> String {
        let what = match (self.count, self.height, self.statistics) {
            (Some(count), Some(_), true) => format!("{count} pictures and statistics"),
            (Some(count), Some(_), false) => format!("{count} pictures"),
            (Some(count), None, _) => format!("statistics of {count} pictures"),
            (None, ..) => "statistics".to_owned(),
        };
        let short: String = self.sha256.chars().take(12).collect();
        format!("{}: {what}, sha256 {short}…, labels {}", self.path, self.label_policy)
    }
}

impl Record {
    pub fn text(&self) -> String {
        let short: String = self.features.sha256.chars().take(12).collect();
        let through = self.reconstructed_by.as_ref().map_or(String::new(), |codec| {
            let short: String = codec.sha256.chars().take(12).collect();
            format!("through    {}, encoded and decoded (sha256 {short}…)\n", codec.name)
        });
        let mut text = format!(
            "samples    {}\n{through}reference  {}\nfeatures   {} ({} wide, sha256 {short}…)\n",
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
            if let Some(Estimate { value, low, high, covers, .. }) = estimate {
                text.push_str(&format!("{name:<11}{value:.digits$}  [{low:.digits$}, {high:.digits$}] {covers}\n"));
            }
        }
        for LeftOut { metric, why } in &self.left_out {
            text.push_str(&format!("{metric}: left out, as {why}\n"));
        }
        text.push_str("intervals: 95 %, over what stands behind them; all else is held fixed\n");
        text
    }
}
