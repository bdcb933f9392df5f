use std::fs;
use std::path::{Path, PathBuf};

use crate::entry::{Entry, Kind};
use crate::error::{Error, Result};
use crate::manifest::RawManifest;
use crate::weights_dir::{MANIFEST, WeightsDir};

/// The repository's own manifest.
const BUILTIN: &str = include_str!("../../../weights/manifest.json");
/// Below this similarity (Jaro–Winkler) a name is no misspelling but another word.
const LEAST: f64 = 0.8;
/// At most this many names are suggested.
const MOST: usize = 3;

/// The known checkpoints, in the manifest's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    entries: Vec<Entry>,
    /// The file it was read from, if it was one.
    manifest: Option<PathBuf>,
}

impl Catalog {
    /// The repository's manifest as it was when the program was built.
    ///
    /// # Errors
    /// None in a program whose tests pass: the manifest is checked there. [`Error::Parse`] and [`Error::Invalid`] otherwise.
    pub fn builtin() -> Result<Self> {
        Self::parse(BUILTIN, "the built-in manifest", None)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Parse`] with line and column, also for an unknown key; [`Error::Invalid`] with everything
    /// that contradicts itself.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, &path.display().to_string(), Some(path))
    }

    /// The manifest of a weights folder, or the built-in one if the folder has none.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of(weights: &WeightsDir) -> Result<Self> {
        let path = weights.path().join(MANIFEST);
        if path.is_file() { Self::load(&path) } else { Self::builtin() }
    }

    /// All checkpoints, in the manifest's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether a checkpoint is called so.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name() == name)
    }

    /// The checkpoint of that name.
    ///
    /// # Errors
    /// [`Error::Unknown`] with near names and all names.
    pub fn get(&self, name: &str) -> Result<&Entry> {
        self.find(name, |_| true)
    }

    /// The checkpoint of that name, where one of this kind is sought: another kind's is returned too, but not suggested.
    ///
    /// # Errors
    /// [`Error::Unknown`] with near names and all names of this kind.
    pub fn get_of(&self, name: &str, kind: Kind) -> Result<&Entry> {
        self.find(name, |entry| entry.kind() == kind)
    }

    /// The checkpoint of that name; where there is none, those that may be `meant` are suggested.
    fn find(&self, name: &str, meant: impl Fn(&Entry) -> bool) -> Result<&Entry> {
        let found = self.entries.iter().find(|entry| entry.name() == name);
        found.ok_or_else(|| {
            let known = || self.entries.iter().filter(|entry| meant(entry)).map(Entry::name);
            Error::Unknown {
                name: name.to_owned(),
                near: near(name, known()),
                known: known().map(str::to_owned).collect(),
            }
        })
    }

    /// The file it was read from; none if built in.
    pub(crate) fn manifest(&self) -> Option<&Path> {
        self.manifest.as_deref()
    }

    fn parse(text: &str, origin: &str, manifest: Option<&Path>) -> Result<Self> {
        let raw: RawManifest =
            serde_json::from_str(text).map_err(|source| Error::Parse { origin: origin.to_owned(), source })?;
        let entries = raw.validate().map_err(|problems| Error::Invalid { origin: origin.to_owned(), problems })?;
        Ok(Self { entries, manifest: manifest.map(Path::to_path_buf) })
    }
}

/// Those of `known` that are near `name`, the nearest first.
fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let typed = name.to_lowercase();
    let mut near: Vec<_> = known
        .map(|known| (known, known.to_lowercase()))
        .filter(|(_, known)| strsim::jaro_winkler(&typed, known) >= LEAST)
        .map(|(name, known)| (strsim::damerau_levenshtein(&typed, &known), name))
        .collect();
    // Stable: equally near names stay in the manifest's order.
    near.sort_by_key(|(edits, _)| *edits);
    near.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}
