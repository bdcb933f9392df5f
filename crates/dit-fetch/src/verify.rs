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
    /// Not as it was. A fetched file was put aside, so that nothing loads it.
    Damaged {
        /// Its name now.
        now: PathBuf,
    },
    /// There, but nobody knows its hash.
    Unknown,
    /// Not there.
    Missing,
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
    /// repository; the next fetch brings it anew.
    ///
    /// # Errors
    /// Unknown names and failing file operations; damage is a [`Finding`], not an error.
    pub fn verify(&self, names: &[String]) -> Result<Vec<Checked>, FetchError> {
        let entries = self.entries(names)?;
        let _busy = Busy::take(&self.settings.dir)?;
        let trust = Trust::open(&self.manifest, &self.settings.dir)?;
        let mut all = Vec::new();
        for entry in entries {
            for (path, expected) in self.known_hashes(entry, &trust) {
                let finding = self.look(entry, &path, expected.as_deref())?;
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
            // Originals that were kept.
            let originals = entry.files().iter().map(|file| staged(self.catalog, entry, file, dir));
            let kept: Vec<_> = originals.filter(|path| path.is_file() && !paths.contains(path)).collect();
            paths.extend(kept);
        }
        paths.into_iter().map(|path| (made(&path).or_else(|| published(&path)), path)).map(|(h, p)| (p, h)).collect()
    }

    fn look(&self, entry: &Entry, path: &Path, expected: Option<&str>) -> Result<Finding, FetchError> {
        if !path.is_file() {
            return Ok(Finding::Missing);
        }
        let Some(expected) = expected else { return Ok(Finding::Unknown) };
        let (_, actual) = self.hash(&path.display().to_string(), path)?;
        if actual == expected {
            return Ok(Finding::Good);
        }
        if !entry.is_remote() {
            return Ok(Finding::Damaged { now: path.to_owned() });
        }
        put_aside(path)?;
        Ok(Finding::Damaged { now: with_suffix(path, ".bad") })
    }
}
