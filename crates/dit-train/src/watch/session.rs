use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, Serializer};

use super::append::AppendFile;

/// The file's name in the run's folder.
const NAME: &str = "sessions.jsonl";

/// What a later reader of the run's folder wants to know about one start of it: a line of `sessions.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Seconds since 1970.
    pub started: u64,
    /// Steps that had been taken.
    pub from_step: u64,
    /// What ran.
    pub program: Program,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// The folder it was typed in. (JSON is text: what is not, in a path, is replaced there.)
    #[serde(serialize_with = "as_text")]
    pub working_folder: PathBuf,
    /// Where it ran.
    pub machine: Machine,
    /// What it learned from.
    pub data: DataIdentity,
    /// The codec of its pictures, by the catalogue's name or by a path that holds anywhere; none where nothing was drawn.
    #[serde(default)]
    pub vae: Option<String>,
    /// Whether it was to train even if it did not seem to fit into memory.
    #[serde(default)]
    pub ignore_memory: bool,
}

/// The program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Of the package.
    pub version: String,
    /// That it was built from, if that is known; `+` follows where sources had been changed.
    pub git_commit: Option<String>,
    /// The libtorch that was loaded, if it says its version; absent from what older versions wrote.
    #[serde(default)]
    pub libtorch: Option<String>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Of the processor.
    pub cpu: Option<String>,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// libtorch's threads.
    pub threads: usize,
    /// Operating system and architecture.
    pub system: String,
}

/// The data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataIdentity {
    /// The folder of latents.
    #[serde(serialize_with = "as_text")]
    pub folder: PathBuf,
    /// Records in it.
    pub records: u64,
    /// The codec that made it, as its user named it.
    pub codec: String,
    /// Of its manifest, which has the hashes of all shards.
    pub manifest_sha256: String,
}

fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl Session {
    /// Now, in Unix time.
    pub fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }

    /// The last line of the run's `sessions.jsonl`; none where there is none that can be read.
    pub fn last(run: &Path) -> Option<Self> {
        let text = fs::read_to_string(run.join(NAME)).ok()?;
        text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    /// Appends the line to the run's `sessions.jsonl`, in the place of a last one that was not finished.
    ///
    /// # Errors
    /// What the system says.
    pub fn append(&self, run: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        AppendFile::of_lines(&run.join(NAME))?.append(&text)
    }
}
