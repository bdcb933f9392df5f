use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dit_recipe::Every;

use crate::TrainError;

/// How a checkpoint's name begins; its step follows in eight digits or more.
const PREFIX: &str = "step-";

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointFolder {
    path: PathBuf,
}

impl CheckpointFolder {
    pub(crate) fn of_run(run: &Path) -> Self {
        Self { path: run.join("checkpoints") }
    }

    /// Whether it has been made.
    pub(crate) fn is_there(&self) -> bool {
        self.path.is_dir()
    }

    /// Where the checkpoint of a step is or will be.
    pub(crate) fn at(&self, step: u64) -> PathBuf {
        self.path.join(format!("{PREFIX}{step:08}"))
    }

    /// The steps of which there are checkpoints, in order.
    pub(crate) fn steps(&self) -> Result<Vec<u64>, TrainError> {
        let failed = |source| TrainError::Io { action: "list", path: self.path.clone(), source };
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut steps = Vec::new();
        for entry in entries {
            steps.extend(step_of(&entry.map_err(failed)?.path()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Makes the folder, and clears it of what a killed process left.
    pub(crate) fn prepare(&self) -> Result<(), TrainError> {
        dit_files::ensure_folder(&self.path)?;
        let failed = |source| TrainError::Io { action: "clear", path: self.path.clone(), source };
        for left in dit_files::remove_unfinished(&self.path).map_err(failed)? {
            tracing::info!(path = %left.display(), "removed what an interrupted run left");
        }
        Ok(())
    }

    /// Removes all checkpoints but those to keep. What stays in spite of that is returned, each with the reason.
    pub(crate) fn rotate(&self, rotation: &Rotation) -> Vec<TrainError> {
        let steps = match self.steps() {
            Ok(steps) => steps,
            Err(error) => return vec![error],
        };
        let old = steps.len().saturating_sub(rotation.last);
        let target = steps.iter().rev().copied().find(|step| rotation.newest_of.is_due(*step));
        let kept = |step: u64| rotation.every.is_due(step) || target == Some(step);
        let leaving = steps.iter().take(old).copied().filter(|step| !kept(*step));
        leaving.filter_map(|step| self.remove(step).err()).collect()
    }

    /// Takes a checkpoint away under another name first, so that no half of it is ever there under its own.
    pub(crate) fn remove(&self, step: u64) -> Result<(), TrainError> {
        let path = self.at(step);
        let leaving = self.path.join(format!(".{PREFIX}{step:08}.old.part"));
        let gone = fs::rename(&path, &leaving).and_then(|()| fs::remove_dir_all(&leaving));
        gone.map_err(|source| TrainError::Io { action: "remove", path, source })
    }
}

/// Which checkpoints are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    /// So many newest.
    pub last: usize,
    /// Those of steps that this divides.
    pub every: Every,
    /// The newest of a step that this divides.
    pub newest_of: Every,
}

/// The step of a checkpoint's folder, by its name.
fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let whole = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn every(steps: u64) -> Every {
        Every::Steps(NonZeroU64::new(steps).unwrap())
    }

    /// Checkpoints of six steps.
    fn filled(run: &Path) -> CheckpointFolder {
        let folder = CheckpointFolder::of_run(run);
        folder.prepare().unwrap();
        for step in [100, 200, 300, 400, 500, 123_456_789] {
            fs::create_dir(folder.at(step)).unwrap();
            fs::write(folder.at(step).join("state.json"), "{}").unwrap();
        }
        folder
    }

    #[track_caller]
    fn check(last: usize, every: Every, newest_of: Every, expected: &[u64]) {
        let run = tempfile::tempdir().unwrap();
        let folder = filled(run.path());
        fs::create_dir(folder.path.join("step-notes")).unwrap();
        fs::create_dir(folder.path.join(".step-00000050.Ab1.part")).unwrap();
        folder.prepare().unwrap();
        assert!(folder.rotate(&Rotation { last, every, newest_of }).is_empty());
        assert_eq!(folder.steps().unwrap(), expected);
        let left = fs::read_dir(&folder.path).unwrap().count();
        assert_eq!(left, expected.len() + 1, "the notes stay, the leftovers do not");
    }

    #[test]
    fn old_checkpoints_go_but_for_those_to_keep() {
        check(1, Every::Never, Every::Never, &[123_456_789]);
        check(3, Every::Never, Every::Never, &[400, 500, 123_456_789]);
        check(9, Every::Never, Every::Never, &[100, 200, 300, 400, 500, 123_456_789]);
        check(2, every(200), Every::Never, &[200, 400, 500, 123_456_789]);
        check(1, Every::Never, every(150), &[300, 123_456_789]);
        check(2, Every::Never, every(500), &[500, 123_456_789]);
    }

    #[test]
    fn one_that_cannot_be_removed_does_not_keep_the_others() {
        let run = tempfile::tempdir().unwrap();
        let folder = filled(run.path());
        // What is left of an earlier one of that step, with something in it.
        let in_the_way = folder.path.join(".step-00000200.old.part");
        fs::create_dir(&in_the_way).unwrap();
        fs::write(in_the_way.join("model.safetensors"), "").unwrap();
        let stays = folder.rotate(&Rotation { last: 1, every: Every::Never, newest_of: Every::Never });
        assert_eq!(folder.steps().unwrap(), [200, 123_456_789]);
        let [error] = stays.as_slice() else { panic!("{stays:?}") };
        assert!(error.to_string().contains("step-00000200") && error.to_string().contains("help:"), "{error}");
    }
}
