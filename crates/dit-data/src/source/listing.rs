use std::path::Path;

use super::Record;
use crate::Error;

/// Labels beyond this are mistakes: each needs a row of an embedding table.
const MOST_CLASSES: u32 = 1_000_000;

/// Keys and labels of all records, and the classes' names.
///
/// Invariant: as many keys as labels; every label is an index into `class_names`.
pub(super) struct Listing {
    keys: Vec<Box<str>>,
    labels: Vec<u32>,
    class_names: Vec<String>,
}

impl Listing {
    /// Records whose classes have names.
    ///
    /// # Errors
    /// [`Error::Source`] if a label has no name.
    pub(super) fn named(path: &Path, records: Vec<(String, i64)>, class_names: Vec<String>) -> Result<Self, Error> {
        let mut listing = Self { keys: Vec::new(), labels: Vec::new(), class_names };
        for (key, label) in records {
            let known = u32::try_from(label).ok().filter(|&label| (label as usize) < listing.class_names.len());
            let Some(label) = known else {
                return Err(Error::Source {
                    path: path.to_owned(),
                    problem: format!("{key} has label {label}; there are {} classes", listing.class_names.len()),
                    help: "labels must count from 0; test splits often hide theirs, so use the training split",
                });
            };
            listing.keys.push(key.into());
            listing.labels.push(label);
        }
        Ok(listing)
    }

    /// Records whose classes have only numbers.
    ///
    /// # Errors
    /// [`Error::Source`] for a negative label, or one beyond a million.
    pub(super) fn numbered(path: &Path, records: Vec<(String, i64)>) -> Result<Self, Error> {
        let largest = records.iter().map(|&(_, label)| label).max().unwrap_or(0);
        let count = largest.clamp(0, i64::from(MOST_CLASSES) - 1) + 1;
        Self::named(path, records, (0..count).map(|label| label.to_string()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn record(&self, index: usize) -> Record<'_> {
        Record { key: &self.keys[index], label: self.labels[index] }
    }

    pub(super) fn class_names(&self) -> &[String] {
        &self.class_names
    }
}
