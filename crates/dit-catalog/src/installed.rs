//! Which checkpoints are there, and how to get those that are not.

use std::path::{Path, PathBuf};

use crate::catalog::Catalog;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::weights_dir::{MANIFEST, WeightsDir};

/// The checkpoint that is sampled from when none is named.
pub const PREFERRED: &str = "dit-xl-2-256";
/// The checkpoint that is sampled from when [`PREFERRED`] is not there: part of the repository.
pub const DEMO: &str = "dit-fashion-demo";

impl Catalog {
    /// What to open for a checkpoint: its file of weights (`dit`) or its folder (`vae`).
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Missing`] with the exact command that brings it.
    pub fn installed(&self, name: &str, weights: &WeightsDir) -> Result<PathBuf> {
        let entry = self.get(name)?;
        match entry.missing_in(weights.path()) {
            None => Ok(entry.path_in(weights.path())),
            Some(missing) => {
                let remedy = self.remedy(entry, &missing, weights);
                Err(Error::Missing { name: name.to_owned(), missing, remedy })
            }
        }
    }

    /// The checkpoint to sample from when none is named: [`PREFERRED`] if it is installed, else [`DEMO`].
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Unknown`] for the demo, or for the preferred checkpoint in a manifest without a demo.
    pub fn default_checkpoint(&self, weights: &WeightsDir) -> Result<&Entry> {
        let preferred = self.get(PREFERRED).and_then(|entry| {
            self.installed(PREFERRED, weights)?;
            Ok(entry)
        });
        if preferred.is_ok() || !self.contains(DEMO) {
            return preferred;
        }
        self.installed(DEMO, weights)?;
        self.get(DEMO)
    }

    /// The command line that brings a downloaded checkpoint into `weights`.
    pub fn fetch_command(&self, name: &str, weights: &WeightsDir) -> String {
        let mut command = format!("cargo xtask fetch-weights {name}");
        if let Some(folder) = weights.explicit() {
            command.push_str(&format!(" --dir {}", quoted(folder)));
        }
        // The folder's own manifest is found without being named.
        let own = weights.path().join(MANIFEST);
        if let Some(manifest) = self.manifest().filter(|manifest| **manifest != own) {
            command.push_str(&format!(" --manifest {}", quoted(manifest)));
        }
        command
    }

    fn remedy(&self, entry: &Entry, missing: &Path, weights: &WeightsDir) -> String {
        if entry.is_remote() {
            format!("run `{}`", self.fetch_command(entry.name(), weights))
        } else {
            format!("it is part of the repository; restore it with `git checkout -- {}`", quoted(missing))
        }
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
