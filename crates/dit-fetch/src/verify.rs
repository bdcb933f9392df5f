//! All hashes once more.

use std::path::{Path, PathBuf};

use dit_catalog::Entry;

use crate::busy::Busy;
use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::layout::staged;
use crate::part::with_suffix;
use crate::receipt::Receipt;
use crate::standing::put_aside;
use crate::trust::Trust;

/// What a hash showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it was.
    Good,
    /// Not as it was, and put aside, so that nothing loads it.
    PutAside {
        /// Its name now.
        now: PathBuf,
    },
    /// Not as it was, and still there: it is part of the repository, or nothing may be written in that folder.
    Damaged,
    /// There, but nobody knows its hash.
    Unknown,
    /// Not there.
    Missing,
}

/// What may be done about damage.
enum Access {
    /// The folder is ours for the time being.
    Exclusive { _busy: Busy },
    /// Nothing can be written there, a lock included.
    ReadOnly,
}

impl Access {
    fn take(dir: &Path) -> Result<Access, FetchError> {
        match Busy::take(dir) {
            Ok(busy) => Ok(Access::Exclusive { _busy: busy }),
            Err(error) if error.is_read_only() => Ok(Access::ReadOnly),
            Err(error) => Err(error),
        }
    }
}

/// One file that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The checkpoint.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What its hash showed.
    pub finding: Finding,
}

impl Fetcher<'_> {
    /// Hashes every file of the named checkpoints again. A damaged one is renamed to `.bad`, unless it is part of the
    /// repository or the folder is read-only; the next fetch brings it anew.
    ///
    /// # Errors
    /// Unknown names and failing file operations; damage is a [`Finding`], not an error.
    pub fn verify(&self, names: &[String]) -> Result<Vec<Checked>, FetchError> {
        let entries = self.entries(names)?;
        let access = Access::take(&self.settings.dir)?;
        let trust = Trust::open(&self.manifest, &self.settings.dir)?;
        let mut all = Vec::new();
        for entry in entries {
            for (path, expected) in self.known_hashes(entry, &trust) {
                let finding = self.look(entry, &path, expected.as_deref(), &access)?;
                all.push(Checked { name: entry.name().to_owned(), path, finding });
            }
        }
        Ok(all)
    }

    /// Files of a checkpoint that are or should be there, with their hashes where known.
    fn known_hashes(&self, entry: &Entry, trust: &Trust) -> Vec<(PathBuf, Option<String>)> {
        let dir = self.settings.dir.as_path();
        let receipt = Receipt::read(dir, entry.name());
        let made = |path: &Path| {
            let made = receipt.as_ref()?.made.iter().find(|made| dir.join(&made.path) == path)?;
            Some(made.sha256.clone())
        };
        let published = |path: &Path| {
            let at = |file: &dit_catalog::CatalogFile| match entry.is_remote() {
                true => staged(self.catalog, entry, file, dir) == path,
                false => dir.join(file.path()) == path,
            };
            let file = entry.files().iter().position(at)?;
            Some(self.expected(entry, file, trust)?.sha256)
        };
        let mut paths = entry.results_in(dir);
        if entry.is_remote() {
            // Those that were kept.
            paths.extend(self.originals(entry));
        }
        paths.into_iter().map(|path| (made(&path).or_else(|| published(&path)), path)).map(|(h, p)| (p, h)).collect()
    }

    fn look(&self, entry: &Entry, path: &Path, expected: Option<&str>, access: &Access) -> Result<Finding, FetchError> {
        if !path.is_file() {
            return Ok(Finding::Missing);
        }
        let Some(expected) = expected else { return Ok(Finding::Unknown) };
        let (_, actual) = self.hash(&path.display().to_string(), path)?;
        if actual == expected {
            return Ok(Finding::Good);
        }
        match access {
            Access::Exclusive { .. } if entry.is_remote() => {
                put_aside(path)?;
                Ok(Finding::PutAside { now: with_suffix(path, ".bad") })
            }
            Access::Exclusive { .. } | Access::ReadOnly => Ok(Finding::Damaged),
        }
    }
}
