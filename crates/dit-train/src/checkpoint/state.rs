use std::{collections::BTreeMap, path::Path};

use dit_data::shard::Position;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::{Machine, STATE};
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
    /// The machine; absent from what older versions wrote.
    #[serde(default)]
    pub machine: Option<Machine>,
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
    pub(crate) fn new(progress: Progress, data: DataIdentity, recipe: String, device: Device) -> Self {
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
            machine: Some(Machine::of(device)),
            files: BTreeMap::new(),
        }
    }

    /// What is not as it was when this was written, with what it was and what it is.
    pub(crate) fn machine_differences(&self, now: &Machine) -> Vec<(&'static str, String, String)> {
        let threads = tch::get_num_threads().to_string();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let mut pairs = vec![
            ("number of threads", self.threads.to_string(), threads),
            ("version of this program", self.version.clone(), version),
        ];
        if let Some(before) = self.machine.clone() {
            let now = now.clone();
            pairs.push(("device", before.device, now.device));
            pairs.push(("set of CPU instructions", before.instructions, now.instructions));
            pairs.push(("version of libtorch", before.libtorch, now.libtorch));
        }
        pairs.retain(|(_, before, now)| before != now);
        pairs
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_told_by_what_differs() {
        let progress = Progress {
            step: 1,
            updates: 1,
            rollbacks: 0,
            position: Position { epoch: 0, consumed: 0, seed: 0, records: 0 },
        };
        let data = DataIdentity { manifest: String::new(), held_out: None };
        let state = State::new(progress, data, String::new(), Device::Cpu);
        let here = Machine::of(Device::Cpu);
        assert_eq!(state.machine_differences(&here), []);
        let told = |state: &State, machine: &Machine| -> Vec<&str> {
            state.machine_differences(machine).into_iter().map(|(what, ..)| what).collect()
        };
        assert_eq!(told(&state, &Machine { libtorch: "1.0.0".to_owned(), ..here.clone() }), ["version of libtorch"]);
        assert_eq!(told(&state, &Machine::of(Device::Cuda(0))), ["device"]);
        let other = State { threads: state.threads + 1, machine: None, ..state };
        assert_eq!(told(&other, &Machine::of(Device::Cuda(0))), ["number of threads"]);
        // What an older version wrote.
        let mut text = serde_json::to_value(&other).unwrap();
        text.as_object_mut().unwrap().remove("machine");
        assert_eq!(serde_json::from_value::<State>(text).unwrap(), other);
    }
}
