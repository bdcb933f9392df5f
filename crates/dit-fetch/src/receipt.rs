//! `.fetched/NAME.json` in the weights folder: what was put there, and from what.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::FetchError;
use crate::part::write_json;

/// A file that a checkpoint consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Made {
    /// Below the weights folder.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Nanoseconds since 1970: with the length, tells a file that was touched since without reading it.
    modified: u64,
}

impl Made {
    /// Describes `dir/path`, whose content has this length and hash.
    pub(crate) fn describe(dir: &Path, path: &Path, bytes: u64, sha256: String) -> Result<Made, FetchError> {
        let full = dir.join(path);
        let modified = modified(&full).map_err(|e| FetchError::io("examine", &full, e))?;
        Ok(Made { path: path.to_owned(), bytes, sha256, modified })
    }

    /// Whether the file looks as it did when it was hashed.
    pub(crate) fn untouched(&self, dir: &Path) -> bool {
        let path = dir.join(&self.path);
        std::fs::metadata(&path).is_ok_and(|m| m.len() == self.bytes)
            && modified(&path).is_ok_and(|t| t == self.modified)
    }
}

fn modified(path: &Path) -> std::io::Result<u64> {
    let time = std::fs::metadata(path)?.modified()?;
    Ok(time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64))
}

/// A file of the manifest that it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) file: String,
    pub(crate) from: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Written last: a checkpoint that has one is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Receipt {
    pub(crate) name: String,
    pub(crate) made: Vec<Made>,
    pub(crate) sources: Vec<Source>,
    /// The sources were still to be deleted when this was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleting: bool,
}

impl Receipt {
    /// `None` where there is none that can be read: then the files are looked at instead.
    pub(crate) fn read(dir: &Path, name: &str) -> Option<Receipt> {
        let receipt: Receipt = serde_json::from_slice(&std::fs::read(file(dir, name)).ok()?).ok()?;
        (receipt.name == name).then_some(receipt)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), FetchError> {
        let path = file(dir, &self.name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| FetchError::io("create", folder, e))?;
        }
        write_json(&path, self)
    }

    pub(crate) fn delete(dir: &Path, name: &str) -> Result<(), FetchError> {
        crate::part::remove(&file(dir, name))
    }

    /// Whether all files look as they did when they were hashed.
    pub(crate) fn untouched(&self, dir: &Path) -> bool {
        !self.made.is_empty() && self.made.iter().all(|made| made.untouched(dir))
    }
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(".fetched").join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let path = Path::new("n.safetensors");
        std::fs::write(dir.join(path), b"abc").unwrap();
        let receipt = Receipt {
            name: "n".to_owned(),
            made: vec![Made::describe(dir, path, 3, "00".to_owned()).unwrap()],
            sources: Vec::new(),
            deleting: false,
        };
        receipt.write(dir).unwrap();
        assert_eq!(Receipt::read(dir, "n"), Some(receipt.clone()));
        assert_eq!(Receipt::read(dir, "m"), None);
        assert!(receipt.untouched(dir));

        let file = std::fs::File::options().write(true).open(dir.join(path)).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
        assert!(!receipt.untouched(dir));
        std::fs::remove_file(dir.join(path)).unwrap();
        assert!(!receipt.untouched(dir));
        Receipt::delete(dir, "n").unwrap();
        Receipt::delete(dir, "n").unwrap();
        assert_eq!(Receipt::read(dir, "n"), None);
    }
}
