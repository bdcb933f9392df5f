//! One file, from wherever it is nearest: the weights folder, the hub's cache, the network.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dit_catalog::{CatalogFile, Entry};

use crate::addresses::addresses;
use crate::digest::{CHUNK, hash_file};
use crate::download::{Downloader, Expected, Target};
use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::http::Client;
use crate::install::Input;
use crate::layout::{staged, uniqueness};
use crate::observe::Event;
use crate::part::{Part, Proof};
use crate::settings::Network;
use crate::trust::{self, Trust};

impl Fetcher<'_> {
    /// The hash that a file must have, if anybody knows.
    pub(crate) fn expected(&self, entry: &Entry, file: usize, trust: &Trust) -> Option<Expected> {
        let file = entry.files().get(file)?;
        let published =
            file.sha256().map(|hash| Expected { sha256: hash.to_owned(), origin: "says the manifest".to_owned() });
        let seen = || {
            let seen = trust.get(entry.name(), file.path())?;
            Some(Expected { sha256: seen.sha256.clone(), origin: trust::ORIGIN.to_owned() })
        };
        published.or_else(seen)
    }

    pub(crate) fn target(&self, entry: &Entry, file: usize, expected: Option<Expected>) -> Target {
        let label = self.label(entry, file);
        let Some(file) = entry.files().get(file) else {
            return Target { label, path: PathBuf::new(), urls: Vec::new(), bytes: None, expected };
        };
        Target {
            label,
            path: staged(self.catalog, entry, file, &self.settings.dir),
            urls: addresses(self.settings, entry.name(), file.path(), uniqueness(self.catalog, file), file.urls()),
            bytes: file.bytes(),
            expected,
        }
    }

    /// The file in the hub's cache.
    pub(crate) fn cached(&self, file: &CatalogFile) -> Option<PathBuf> {
        file.urls().iter().find_map(|url| self.settings.hub.cached(url))
    }

    /// Makes a file of a checkpoint readable on this machine, with the expected hash.
    pub(crate) fn obtain(
        &self,
        client: &Client<'_>,
        entry: &Entry,
        file: usize,
        expected: Option<Expected>,
    ) -> Result<Input, FetchError> {
        let target = self.target(entry, file, expected);
        if target.path.is_file()
            && let Some(input) = self.already_there(&target)?
        {
            return Ok(input);
        }
        let cached = entry.files().get(file).and_then(|f| self.cached(f));
        if let Some(cached) = cached
            && let Some(input) = self.take_cached(entry, &target, &cached)?
        {
            return Ok(input);
        }
        if self.settings.network == Network::Offline {
            return Err(FetchError::Offline {
                name: entry.name().to_owned(),
                file: target.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                dir: self.settings.dir.clone(),
            });
        }
        let downloader =
            Downloader { client, retry: &self.settings.retry, observer: self.observer, cancel: &self.cancel };
        let arrived = downloader.fetch(&target)?;
        Ok(Input {
            path: target.path,
            borrowed: false,
            bytes: arrived.bytes,
            sha256: arrived.sha256,
            from: arrived.url,
            verified: target.expected.is_some(),
        })
    }

    /// The file that an earlier run or the user put there, if it is right; a wrong one is put aside.
    fn already_there(&self, target: &Target) -> Result<Option<Input>, FetchError> {
        let (bytes, sha256) = self.hash(&target.label, &target.path)?;
        let right = target.expected.as_ref().is_none_or(|e| e.sha256 == sha256)
            && target.bytes.is_none_or(|expected| expected == bytes);
        if !right {
            let bad = target.bad_path();
            std::fs::rename(&target.path, &bad).map_err(|e| FetchError::io("rename", &target.path, e))?;
            let text = format!("{} is not the file that it should be; it is now {}", target.label, bad.display());
            self.observer.observe(&Event::Note { text: &text });
            return Ok(None);
        }
        self.observer.observe(&Event::Verified { file: &target.label });
        let from = "already in the weights folder".to_owned();
        let verified = target.expected.is_some();
        Ok(Some(Input { path: target.path.clone(), borrowed: false, bytes, sha256, from, verified }))
    }

    pub(crate) fn hash(&self, label: &str, path: &Path) -> Result<(u64, String), FetchError> {
        let total = std::fs::metadata(path).map_or(0, |m| m.len());
        self.observer.observe(&Event::Checking { file: label, total });
        hash_file(path, &self.cancel, |bytes| self.observer.observe(&Event::Advanced { file: label, bytes }))
    }

    /// The hub's copy, if it is right: read in place where it will not be kept, else copied.
    fn take_cached(&self, entry: &Entry, target: &Target, cached: &Path) -> Result<Option<Input>, FetchError> {
        let right = |bytes: u64, sha256: &str| {
            target.expected.as_ref().is_none_or(|e| e.sha256 == sha256) && target.bytes.is_none_or(|b| b == bytes)
        };
        let borrowed = self.may_stay_in_cache(entry);
        let found = if borrowed {
            Some(self.hash(&target.label, cached)?).filter(|(bytes, sha256)| right(*bytes, sha256))
        } else {
            let part = self.copy(target, cached)?;
            let found = (part.len(), part.sha256());
            if right(found.0, &found.1) {
                part.promote(&target.path)?;
                Some(found)
            } else {
                part.discard()?;
                None
            }
        };
        let Some((bytes, sha256)) = found else {
            let text = format!("{}: the copy in the hub's cache is damaged or another version; not used", target.label);
            self.observer.observe(&Event::Note { text: &text });
            return Ok(None);
        };
        self.observer.observe(&Event::Verified { file: &target.label });
        let path = if borrowed { cached.to_owned() } else { target.path.clone() };
        // Not where that is: the record of first fetches may be shared.
        let from = "the hub's cache".to_owned();
        Ok(Some(Input { path, borrowed, bytes, sha256, from, verified: target.expected.is_some() }))
    }

    fn copy(&self, target: &Target, cached: &Path) -> Result<Part, FetchError> {
        let total = std::fs::metadata(cached).map_or(0, |m| m.len());
        self.observer.observe(&Event::Checking { file: &target.label, total });
        let mut source = File::open(cached).map_err(|e| FetchError::io("open", cached, e))?;
        let mut part = Part::open(&target.path, Proof::Hash, &self.cancel, |_| ())?;
        part.restart()?;
        let mut buffer = vec![0; CHUNK];
        loop {
            self.cancel.check()?;
            match source.read(&mut buffer).map_err(|e| FetchError::io("read", cached, e))? {
                0 => return Ok(part),
                n => {
                    part.write(&buffer[..n])?;
                    self.observer.observe(&Event::Advanced { file: &target.label, bytes: n as u64 });
                }
            }
        }
    }
}
