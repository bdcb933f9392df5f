use std::{collections::BTreeMap, path::Path};

use dit_data::shard::Position;
use serde::{Deserialize, Serialize};

use super::STATE;
use crate::TrainError;

/// The version of the file that this code writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// What is not a tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    /// Steps taken.
    pub step: u64,
    /// Steps of the optimizer: those taken, without those that were skipped.
    pub updates: u64,
    /// How often the run went back to a checkpoint.
    pub rollbacks: u32,
    /// Where the data are.
    pub position: Position,
    /// Which data.
    pub data: DataIdentity,
    /// The recipe, whole.
    pub recipe: String,
    /// The version of this program.
    pub version: String,
    /// libtorch's threads: sums of another number of threads differ in their last bits.
    pub threads: i32,
    /// SHA-256 of each file of tensors.
    pub files: BTreeMap<String, String>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub step: u64,
    pub updates: u64,
    pub rollbacks: u32,
    pub position: Position,
}

/// Which data a run trains on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataIdentity {
    /// SHA-256 of the latents' manifest, which has that of every shard.
    pub manifest: String,
    /// That of the held-out folder's, where there is one.
    pub held_out: Option<String>,
}

impl State {
    pub(crate) fn new(progress: Progress, data: DataIdentity, recipe: String) -> Self {
        let Progress { step, updates, rollbacks, position } = progress;
        Self {
            format: FORMAT,
            step,
            updates,
            rollbacks,
            position,
            data,
            recipe,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            threads: tch::get_num_threads(),
            files: BTreeMap::new(),
        }
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(STATE);
        let damaged = |problem: String| TrainError::Damaged { path: folder.to_owned(), problem };
        let text = std::fs::read(&path).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        // The version first: another one may have other fields.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(&text).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        if head.format != FORMAT {
            return Err(TrainError::Format { path, found: head.format, expected: FORMAT });
        }
        serde_json::from_slice(&text).map_err(|error| damaged(format!("{STATE}: {error}")))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(STATE);
        let failed =
            |error: serde_json::Error| TrainError::Io { action: "write", path: path.clone(), source: error.into() };
        let mut text = serde_json::to_vec_pretty(self).map_err(failed)?;
        text.push(b'\n');
        Ok(dit_files::write_atomically(&path, &text)?)
    }
}
