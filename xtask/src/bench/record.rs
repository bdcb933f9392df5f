//! What was measured, as files: one a pair, so that a long run can be made in pieces.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::statistics::Summary;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    Pair(Box<PairRecord>),
    Figures(Box<Figures>),
}

/// In place of a reference's name, where results are no function of the case alone.
pub const NO_REFERENCE: &str = "none";

/// Two engines on one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairRecord {
    pub name: String,
    /// The case, as a table shows it.
    pub title: String,
    pub device: String,
    pub ours: Side,
    pub peer: Side,
    /// The peer's time over ours, round by round.
    pub ratio: Summary,
    pub target: Option<f64>,
    /// Floating-point operations of a step's matrix products.
    pub flop: Option<f64>,
    /// GFLOP/s of libtorch's bf16 Linear in the same minutes: before, after.
    pub linear_bf16: Vec<f64>,
    /// Of the processors' time, what went to other processes and to other guests of the host.
    pub taken_by_others: Option<f64>,
    /// What differences were taken from, or [`NO_REFERENCE`].
    pub reference: String,
    pub machine: Machine,
}

/// One engine's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// As it names itself.
    pub engine: String,
    pub precision: String,
    /// Seconds of every step, in order.
    pub steps: Vec<f64>,
    pub seconds: Summary,
    pub seconds_load: Option<f64>,
    /// Compiling and the first steps.
    pub seconds_prepare: Option<f64>,
    pub peak_rss_bytes: Option<u64>,
    /// |result − reference| / |reference|.
    pub difference: Option<f64>,
    /// What it used of one processor while it waited: spinning would slow the other.
    pub idle_share: Option<f64>,
}

/// A list of single figures: start-up, kernels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub name: String,
    pub title: String,
    pub rows: Vec<Figure>,
    pub machine: Machine,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub what: String,
    pub measured: String,
    pub target: Option<String>,
}

impl Record {
    pub fn name(&self) -> &str {
        match self {
            Self::Pair(pair) => &pair.name,
            Self::Figures(figures) => &figures.name,
        }
    }

    pub fn machine(&self) -> &Machine {
        match self {
            Self::Pair(pair) => &pair.machine,
            Self::Figures(figures) => &figures.machine,
        }
    }
}

/// The folder of records.
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Below the bench's folder; those of a GPU, and of small models, are kept apart: cases of one name are not the same there.
    pub fn open(bench: &Path, device: &str, quick: bool) -> Result<Self> {
        let device = if device == "cpu" { "" } else { "-cuda" };
        let folder = bench.join(format!("records{device}{}", if quick { "-quick" } else { "" }));
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Self { folder })
    }

    pub fn keep(&self, record: &Record) -> Result<()> {
        self.write(&self.path(record.name()), &serde_json::to_string_pretty(record)?)
    }

    /// The table of the last run, beside the records.
    pub fn keep_table(&self, table: &str) -> Result<()> {
        self.write(&self.folder.join("last-run.md"), table)
    }

    /// Under its name whole or not at all.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let written = tempfile::NamedTempFile::new_in(&self.folder)
            .and_then(|file| fs::write(file.path(), text).map(|()| file))
            .and_then(|file| file.persist(path).map_err(|error| error.error));
        written.map(|_| ()).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Whether it was measured here with what is built now.
    pub fn has(&self, name: &str, machine: &Machine) -> bool {
        let kept = fs::read_to_string(self.path(name)).ok();
        let record = kept.and_then(|text| serde_json::from_str::<Record>(&text).ok());
        record.is_some_and(|record| record.machine().is_same_build(machine))
    }

    /// All of them, by name.
    pub fn all(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.folder).with_context(|| self.folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let record: Record = serde_json::from_str(&text)
                    .with_context(|| format!("{} is of another version; delete it", path.display()))?;
                records.push(record);
            }
        }
        records.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(records)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.json", name.replace('/', "--")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, machine: Machine) -> Record {
        let rows = vec![Figure { what: "help".into(), measured: "4 ms".into(), target: Some("50 ms".into()) }];
        Record::Figures(Box::new(Figures { name: name.into(), title: "Start-up".into(), rows, machine }))
    }

    #[test]
    fn what_is_kept_is_found_again_for_the_same_build_only() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path(), "cpu", false).unwrap();
        let machine = Machine::example();
        let other = Machine { commit: "other".into(), ..machine.clone() };
        records.keep(&record("b", machine.clone())).unwrap();
        records.keep(&record("a/x", machine.clone())).unwrap();
        records.keep(&record("a/x", machine.clone())).unwrap();
        let names: Vec<String> = records.all().unwrap().iter().map(|record| record.name().to_owned()).collect();
        assert_eq!(names, ["a/x", "b"]);
        assert!(records.has("a/x", &machine));
        assert!(!records.has("a/x", &other) && !records.has("c", &machine));
        for (device, quick) in [("cuda", false), ("cpu", true), ("cuda", true)] {
            let elsewhere = Records::open(folder.path(), device, quick).unwrap();
            assert!(!elsewhere.has("a/x", &machine), "{device}, quick: {quick}");
            elsewhere.keep(&record("a/x", other.clone())).unwrap();
        }
        assert!(records.has("a/x", &machine), "overwritten by another device's");
    }
}
