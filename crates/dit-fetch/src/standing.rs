//! Whether a checkpoint is ready, or must be fetched.

use std::path::Path;

use dit_catalog::{Entry, Kind};

use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::layout::is_safetensors;
use crate::observe::Event;
use crate::part::with_suffix;
use crate::receipt::{Made, Receipt, Source};
use crate::settings::Originals;
use crate::trust::Trust;

/// Whether there is anything to do for a checkpoint.
pub(crate) enum Standing {
    Ready,
    Wanted,
}

impl Fetcher<'_> {
    pub(crate) fn standing(&self, entry: &Entry, trust: &Trust) -> Result<Standing, FetchError> {
        let dir = self.settings.dir.as_path();
        if !entry.is_remote() {
            return self.committed(entry);
        }
        if entry.missing_in(dir).is_some() {
            return Ok(Standing::Wanted);
        }
        match Receipt::read(dir, entry.name()) {
            Some(receipt) if !self.agrees(&receipt, entry, trust) => {
                let text = format!("{}: the manifest names another version now", entry.name());
                self.observer.observe(&Event::Note { text: &text });
                Ok(Standing::Wanted)
            }
            Some(receipt) if receipt.untouched(dir) => {
                self.finish_deleting(entry, receipt)?;
                Ok(Standing::Ready)
            }
            Some(receipt) => self.touched(receipt),
            // These files are what was published: their own hashes tell, as for any file that is there already.
            None if entry.kind() == Kind::Features => Ok(Standing::Wanted),
            None if entry.kind() == Kind::Vae && entry.files().iter().any(is_safetensors) => Ok(Standing::Wanted),
            None => self.adopt(entry, trust),
        }
    }

    /// A checkpoint of the repository cannot be fetched: it is right, or the user is told how to get it back.
    fn committed(&self, entry: &Entry) -> Result<Standing, FetchError> {
        for (file, path) in entry.files().iter().zip(entry.results_in(&self.settings.dir)) {
            if !path.is_file() {
                return Err(FetchError::Committed { path, problem: "missing" });
            }
            if let Some(expected) = file.sha256() {
                let label = format!("{}/{}", entry.name(), file.path());
                let (_, actual) = self.hash(&label, &path)?;
                if actual != expected {
                    return Err(FetchError::Committed { path, problem: "damaged" });
                }
                self.observer.observe(&Event::Verified { file: &label });
            }
        }
        Ok(Standing::Ready)
    }

    /// Whether a checkpoint was made from the files that the manifest, or the record of the first fetch, names.
    fn agrees(&self, receipt: &Receipt, entry: &Entry, trust: &Trust) -> bool {
        entry.files().iter().enumerate().all(|(i, file)| {
            let source = receipt.sources.iter().find(|s| s.file == file.path());
            match (source, self.expected(entry, i, trust)) {
                (Some(source), Some(expected)) => source.sha256 == expected.sha256,
                (source, _) => source.is_some(),
            }
        })
    }

    /// Files whose length or time changed since they were hashed: the hash decides. A wrong one is put aside.
    fn touched(&self, receipt: Receipt) -> Result<Standing, FetchError> {
        let dir = self.settings.dir.as_path();
        let mut made = Vec::new();
        let mut standing = Standing::Ready;
        for old in &receipt.made {
            let label = old.path.display().to_string();
            let path = dir.join(&old.path);
            let (bytes, sha256) = self.hash(&label, &path)?;
            if sha256 == old.sha256 {
                self.observer.observe(&Event::Verified { file: &label });
                made.push(Made::describe(dir, &old.path, bytes, sha256)?);
            } else {
                put_aside(&path)?;
                let text = format!("{label} is not what was fetched; it is now {label}.bad");
                self.observer.observe(&Event::Note { text: &text });
                standing = Standing::Wanted;
            }
        }
        match standing {
            Standing::Ready => Receipt { made, ..receipt }.write(dir)?,
            Standing::Wanted => Receipt::delete(dir, &receipt.name)?,
        }
        Ok(standing)
    }

    /// A converted file without a receipt: made by hand, or the process was killed at the last moment.
    fn adopt(&self, entry: &Entry, trust: &Trust) -> Result<Standing, FetchError> {
        let dir = self.settings.dir.as_path();
        let expected: Option<Vec<_>> = (0..entry.files().len()).map(|i| self.expected(entry, i, trust)).collect();
        let results = entry.results_in(dir);
        let (Kind::Dit, [path]) = (entry.kind(), results.as_slice()) else { return Ok(Standing::Wanted) };
        let Some(origin) = crate::convert::origin_of(path) else {
            put_aside(path)?;
            let text = format!("{} is not a whole safetensors file; it is now .bad", path.display());
            self.observer.observe(&Event::Note { text: &text });
            return Ok(Standing::Wanted);
        };
        let made_from_it = |sha256: &str| expected.as_ref().is_some_and(|e| e.iter().any(|e| e.sha256 == sha256));
        if expected.is_none() && self.is_there(entry, origin.as_deref())? {
            // Killed before the record of the first fetch: nobody knows the hash, but what it was made from is there.
            return Ok(Standing::Wanted);
        }
        let Some(sha256) = origin.filter(|sha256| made_from_it(sha256)) else {
            let text = format!(
                "{} is there, but not made from the manifest's file: left as it is. To fetch afresh, move it away",
                path.display()
            );
            self.observer.observe(&Event::Note { text: &text });
            return Ok(Standing::Ready);
        };
        if self.settings.originals == Originals::Delete && self.is_there(entry, Some(&sha256))? {
            // Killed between the result and its receipt. Making it again needs no network, and deletes the original in the
            // end.
            return Ok(Standing::Wanted);
        }
        let relative = path.strip_prefix(dir).unwrap_or(path);
        let (bytes, hash) = self.hash(entry.name(), path)?;
        let source = |file: &dit_catalog::CatalogFile| Source {
            file: file.path().to_owned(),
            from: "already in the weights folder".to_owned(),
            bytes: file.bytes().unwrap_or(0),
            sha256: sha256.clone(),
        };
        Receipt {
            name: entry.name().to_owned(),
            made: vec![Made::describe(dir, relative, bytes, hash)?],
            sources: entry.files().iter().map(source).collect(),
            deleting: false,
        }
        .write(dir)?;
        Ok(Standing::Ready)
    }

    /// Whether an original of this hash is in the weights folder.
    fn is_there(&self, entry: &Entry, sha256: Option<&str>) -> Result<bool, FetchError> {
        for path in self.originals(entry) {
            if sha256 == Some(self.hash(entry.name(), &path)?.1.as_str()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Renames a file so that nothing loads it.
pub(crate) fn put_aside(path: &Path) -> Result<(), FetchError> {
    std::fs::rename(path, with_suffix(path, ".bad")).map_err(|e| FetchError::io("rename", path, e))
}
