//! `manifest.lock.json`: the hashes of files for which the manifest has none, as they were on the first fetch.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::FetchError;
use crate::part::write_json;

/// Who says what the hash is, when this record does.
pub(crate) const ORIGIN: &str = "recorded in manifest.lock.json on the first fetch";

/// What was seen on the first fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Where it came from, for people.
    pub(crate) from: String,
}

/// By `NAME/FILE`, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    files: BTreeMap<String, Seen>,
}

/// The record beside one manifest; where that folder is read-only, the one in the weights folder.
#[derive(Debug)]
pub(crate) struct Trust {
    manifest: PathBuf,
    /// In the order in which they are asked and written.
    places: Vec<(PathBuf, Entries)>,
}

impl Trust {
    /// Reads the record of `manifest`: `manifest.json` has `manifest.lock.json`.
    pub(crate) fn open(manifest: &Path, dir: &Path) -> Result<Self, FetchError> {
        let mut paths = vec![manifest.with_extension("lock.json"), dir.join("manifest.lock.json")];
        paths.dedup();
        let places =
            paths.into_iter().map(|path| Ok((path.clone(), read(&path)?))).collect::<Result<_, FetchError>>()?;
        Ok(Trust { manifest: manifest.to_owned(), places })
    }

    pub(crate) fn get(&self, name: &str, file: &str) -> Option<&Seen> {
        let key = key(name, file);
        self.places.iter().find_map(|(_, entries)| entries.files.get(&key))
    }

    /// Records files seen for the first time; what was recorded before, by whomever, stays.
    pub(crate) fn record(&mut self, name: &str, files: &[(String, Seen)]) -> Result<(), FetchError> {
        let files: Vec<_> = files.iter().filter(|(file, _)| self.get(name, file).is_none()).collect();
        if files.is_empty() {
            return Ok(());
        }
        // The manifest itself serves as the lock between processes that write to different folders.
        let lock = File::open(&self.manifest).map_err(|e| FetchError::io("open", &self.manifest, e))?;
        lock.lock().map_err(|e| FetchError::io("lock", &self.manifest, e))?;
        let last = self.places.len().saturating_sub(1);
        for (i, (path, entries)) in self.places.iter_mut().enumerate() {
            *entries = read(path)?;
            let mut more = entries.clone();
            for (file, seen) in &files {
                more.files.entry(key(name, file)).or_insert_with(|| seen.clone());
            }
            match write_json(path, &more) {
                // What this place says still counts; what is new goes to the next one.
                Err(error) if i < last && error.is_read_only() => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    *entries = more;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn key(name: &str, file: &str) -> String {
    format!("{name}/{file}")
}

fn read(path: &Path) -> Result<Entries, FetchError> {
    let json = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Entries::default()),
        other => other.map_err(|e| FetchError::io("read", path, e))?,
    };
    // A record that cannot be read must not count as no record: that would trust anything again.
    serde_json::from_slice(&json).map_err(|e| FetchError::io("understand", path, e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sha256: &str) -> Seen {
        Seen { bytes: 1, sha256: sha256.to_owned(), from: "http://h/x".to_owned() }
    }

    #[test]
    fn the_first_record_stays() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("lab.json");
        std::fs::write(&manifest, "{}").unwrap();
        let mut a = Trust::open(&manifest, dir.path()).unwrap();
        let mut b = Trust::open(&manifest, dir.path()).unwrap();
        a.record("n", &[("f".to_owned(), seen("aa"))]).unwrap();
        b.record("n", &[("f".to_owned(), seen("bb")), ("g".to_owned(), seen("cc"))]).unwrap();
        let again = Trust::open(&manifest, dir.path()).unwrap();
        assert_eq!(again.get("n", "f"), Some(&seen("aa")));
        assert_eq!(again.get("n", "g"), Some(&seen("cc")));
        assert_eq!(again.get("m", "f"), None);
        assert_eq!(b.get("n", "f"), Some(&seen("aa")));
        assert!(!dir.path().join("manifest.lock.json").exists());
        assert!(dir.path().join("lab.lock.json").is_file());
    }

    /// Makes writing `path` fail as on a read-only file system, for every user: its temporary file leads to sysfs.
    #[cfg(target_os = "linux")]
    fn forbid_writing(path: &Path) {
        std::os::unix::fs::symlink("/sys/no-such-file", crate::part::with_suffix(path, ".tmp")).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn where_the_first_place_is_read_only_the_second_adds_to_it() {
        let shared = tempfile::tempdir().unwrap();
        let own = tempfile::tempdir().unwrap();
        let manifest = shared.path().join("lab.json");
        std::fs::write(&manifest, "{}").unwrap();
        Trust::open(&manifest, own.path()).unwrap().record("n", &[("f".to_owned(), seen("aa"))]).unwrap();
        forbid_writing(&shared.path().join("lab.lock.json"));

        let mut trust = Trust::open(&manifest, own.path()).unwrap();
        trust.record("n", &[("g".to_owned(), seen("bb"))]).unwrap();
        for trust in [trust, Trust::open(&manifest, own.path()).unwrap()] {
            assert_eq!(trust.get("n", "f"), Some(&seen("aa")));
            assert_eq!(trust.get("n", "g"), Some(&seen("bb")));
        }
        assert!(!std::fs::read_to_string(shared.path().join("lab.lock.json")).unwrap().contains("bb"));
        assert!(!std::fs::read_to_string(own.path().join("manifest.lock.json")).unwrap().contains("aa"));
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("manifest.lock.json"), "{\"files\": {").unwrap();
        let error = Trust::open(&dir.path().join("manifest.json"), dir.path()).unwrap_err();
        assert!(error.to_string().contains("manifest.lock.json"), "{error}");
    }
}
