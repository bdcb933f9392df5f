use std::{collections::BTreeMap, fs, path::Path};

use dit_data::shard::Position;
use dit_recipe::Recipe;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Device;

use super::{Machine, STATE};
use crate::{Measurement, TrainError};

/// The version of the file that this code writes; it reads those before, too. A field that is added makes another: a program that
/// does not know the field must say that the file is a newer one's, not that it is damaged.
///
/// 1 had neither `owed` nor `sha256`, and at first no `machine`.
const FORMAT: u32 = 2;

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
    /// What was due after the step and had not been measured yet.
    #[serde(default)]
    pub owed: Vec<Measurement>,
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
    /// That of all above: of this structure as compact JSON, with nothing here.
    #[serde(default)]
    sha256: String,
}

/// How far a run is.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub step: u64,
    pub updates: u64,
    pub rollbacks: u32,
    pub position: Position,
    pub owed: Vec<Measurement>,
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
        let Progress { step, updates, rollbacks, position, owed } = progress;
        Self {
            format: FORMAT,
            step,
            updates,
            rollbacks,
            position,
            owed,
            data,
            recipe,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            threads: tch::get_num_threads(),
            machine: Some(Machine::of(device)),
            files: BTreeMap::new(),
            sha256: String::new(),
        }
    }

    /// The recipe, of the checkpoint in `folder`.
    pub(crate) fn recipe(&self, folder: &Path) -> Result<Recipe, TrainError> {
        Recipe::from_toml(&self.recipe, &[]).map_err(|source| TrainError::StoredRecipe {
            path: folder.join(STATE),
            version: self.version.clone(),
            source,
        })
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
        let text = fs::read(&path).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        // The version first: another one may have other fields.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(&text).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        if head.format > FORMAT {
            return Err(TrainError::Format { path, found: head.format, newest: FORMAT });
        }
        let state: Self = serde_json::from_slice(&text).map_err(|error| damaged(format!("{STATE}: {error}")))?;
        // The first format has no hash, so that one with a hash is another with a changed digit.
        let unsealed = state.format == 1 && state.sha256.is_empty();
        let found = state.seal().map_err(|error| damaged(format!("{STATE}: {error}")))?;
        if !unsealed && found != state.sha256 {
            let expected = if state.sha256.is_empty() { "one" } else { &state.sha256 };
            return Err(damaged(format!("{STATE} has changed: its SHA-256 is {found}, expected {expected}")));
        }
        Ok(state)
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(STATE);
        let failed =
            |error: serde_json::Error| TrainError::Io { action: "write", path: path.clone(), source: error.into() };
        let current = Self { format: FORMAT, ..self.clone() };
        let sealed = Self { sha256: current.seal().map_err(failed)?, ..current };
        let mut text = serde_json::to_vec_pretty(&sealed).map_err(failed)?;
        text.push(b'\n');
        Ok(dit_files::write_atomically(&path, &text)?)
    }

    /// The hash of everything but itself. It holds no fractions, whose text may differ.
    fn seal(&self) -> Result<String, serde_json::Error> {
        let bare = Self { sha256: String::new(), ..self.clone() };
        Ok(hex::encode(Sha256::digest(serde_json::to_vec(&bare)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let progress = Progress {
            step: 11,
            updates: 11,
            rollbacks: 0,
            position: Position { epoch: 3, consumed: 24, seed: 0, records: 96 },
            owed: vec![Measurement::Samples],
        };
        let data = DataIdentity { manifest: "abc".to_owned(), held_out: None };
        let files = BTreeMap::from([("model.safetensors".to_owned(), "def".to_owned())]);
        State { files, ..State::new(progress, data, "[train]\nseed = 1\n".to_owned(), Device::Cpu) }
    }

    /// What is read of a state that was written, and then changed.
    fn changed(change: impl FnOnce(String) -> String) -> Result<State, TrainError> {
        let folder = tempfile::tempdir().unwrap();
        state().write(folder.path()).unwrap();
        let path = folder.path().join(STATE);
        let text = fs::read_to_string(&path).unwrap();
        let other = change(text.clone());
        assert_ne!(text, other, "nothing has changed");
        fs::write(&path, other).unwrap();
        State::read(folder.path())
    }

    #[track_caller]
    fn check_damaged(from: &str, to: &str) {
        match changed(|text| text.replacen(from, to, 1)) {
            Err(TrainError::Damaged { problem, .. }) => assert!(problem.contains(STATE), "{problem}"),
            other => panic!("{from} became {to}: {other:?}"),
        }
    }

    #[test]
    fn whatever_changes_is_seen() {
        check_damaged("\"consumed\": 24", "\"consumed\": 25");
        check_damaged("\"rollbacks\": 0", "\"rollbacks\": 1");
        check_damaged("\"step\": 11", "\"step\": 12");
        check_damaged("\"samples\"", "\"validation\"");
        check_damaged("seed = 1", "seed = 2");
        check_damaged("\"sha256\": \"", "\"sha256\": \"0");
        check_damaged("\"format\": 2", "\"format\": 1");
        check_damaged("\"format\": 2", "\"format\": 0");
        check_damaged("\"threads\"", "\"treads\"");
        // How it is laid out is no matter.
        let compact = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string();
        let read = changed(compact).unwrap();
        assert_eq!(State { sha256: String::new(), ..read }, state());
    }

    #[test]
    fn a_newer_format_is_said_to_be_one_whatever_its_fields() {
        let newer = |text: String| text.replacen("\"format\": 2", "\"format\": 3, \"more\": 1", 1);
        match changed(newer) {
            Err(error @ TrainError::Format { found: 3, newest: 2, .. }) => {
                assert!(error.to_string().contains("written by a newer version"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_format_is_read() {
        let text = r#"{"format": 1, "step": 4, "updates": 4, "rollbacks": 0, "version": "0.1.0", "threads": 2,
            "position": {"epoch": 0, "consumed": 32, "seed": 0, "records": 96},
            "data": {"manifest": "abc", "held_out": null}, "recipe": "", "files": {}}"#;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(STATE), text).unwrap();
        let read = State::read(folder.path()).unwrap();
        assert_eq!((read.step, read.position.consumed, read.machine, read.owed), (4, 32, None, Vec::new()));
    }

    #[test]
    fn another_field_is_another_format() {
        let fields = "data files format machine owed position recipe rollbacks sha256 step threads updates version";
        let value = serde_json::to_value(state()).unwrap();
        let mut found: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!((FORMAT, found.join(" ").as_str()), (2, fields), "a field more or less: count FORMAT up, too");
    }

    #[test]
    fn another_machine_is_told_by_what_differs() {
        let state = state();
        let here = Machine::of(Device::Cpu);
        assert_eq!(state.machine_differences(&here), []);
        let told = |state: &State, machine: &Machine| -> Vec<&str> {
            state.machine_differences(machine).into_iter().map(|(what, ..)| what).collect()
        };
        assert_eq!(told(&state, &Machine { libtorch: "1.0.0".to_owned(), ..here.clone() }), ["version of libtorch"]);
        assert_eq!(told(&state, &Machine::of(Device::Cuda(0))), ["device"]);
        let other = State { threads: state.threads + 1, machine: None, ..state };
        assert_eq!(told(&other, &Machine::of(Device::Cuda(0))), ["number of threads"]);
    }
}
