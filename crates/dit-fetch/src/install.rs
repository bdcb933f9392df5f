//! From verified files to what the rest of the toolkit opens.

use std::path::{Path, PathBuf};

use dit_catalog::{CatalogFile, Entry, Kind};

use crate::convert::blames_the_file;
use crate::digest::hash_file;
use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::layout::{is_config, is_safetensors, staged};
use crate::observe::Event;
use crate::part::{remove, with_suffix};
use crate::receipt::{Made, Receipt, Source};
use crate::settings::Originals;
use crate::standing::put_aside;
use crate::trust::{Seen, Trust};

/// A file of a checkpoint that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    /// It belongs to the hub's cache: neither moved nor deleted.
    pub(crate) borrowed: bool,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// Where it came from, for people.
    pub(crate) from: String,
    /// Its hash was known before it came.
    pub(crate) verified: bool,
}

impl Fetcher<'_> {
    /// Whether a file becomes another one.
    pub(crate) fn is_converted(&self, entry: &Entry, file: &CatalogFile) -> bool {
        match entry.kind() {
            // Also a safetensors file: the result carries the configuration and the EMA weights alone.
            Kind::Dit => true,
            Kind::Vae => !is_config(file) && !is_safetensors(file),
            Kind::Features => false,
        }
    }

    /// Makes the checkpoint from its files. The order of steps is such that a process killed between any two of them
    /// leaves a state that the next run mends: result, record of the first fetch, receipt, and only then deletions.
    pub(crate) fn install(&self, entry: &Entry, inputs: &[Input], trust: &mut Trust) -> Result<(), FetchError> {
        let dir = self.settings.dir.as_path();
        let made = match entry.kind() {
            Kind::Dit => self.convert_dit(entry, inputs),
            Kind::Vae => self.prepare_vae(entry, inputs),
            // Kept as published; whoever opens it checks every tensor.
            Kind::Features => Ok(()),
        };
        if let Err(error) = made {
            if blames_the_file(&error) {
                self.quarantine(entry, inputs)?;
            }
            return Err(error);
        }

        let seen = |(file, input): (&CatalogFile, &Input)| {
            let seen = Seen { bytes: input.bytes, sha256: input.sha256.clone(), from: input.from.clone() };
            (file.path().to_owned(), seen)
        };
        let files = entry.files().iter().zip(inputs);
        let first: Vec<_> = files.clone().filter(|(_, i)| !i.verified).map(seen).collect();
        for (file, seen) in &first {
            let text = format!(
                "{}/{file}: the manifest has no hash for it; sha256 {} is recorded now and checked ever after",
                entry.name(),
                seen.sha256
            );
            self.observer.observe(&Event::Note { text: &text });
        }
        trust.record(entry.name(), &first)?;

        let source = |(file, input): (&CatalogFile, &Input)| Source {
            file: file.path().to_owned(),
            from: input.from.clone(),
            bytes: input.bytes,
            sha256: input.sha256.clone(),
        };
        let made = entry.results_in(dir).iter().map(|path| self.made(path, inputs)).collect::<Result<_, _>>()?;
        let sources = files.map(source).collect();
        let deleting = self.settings.originals == Originals::Delete && !self.originals(entry).is_empty();
        let receipt = Receipt { name: entry.name().to_owned(), made, sources, deleting };
        receipt.write(dir)?;
        self.finish_deleting(entry, receipt)?;
        self.observer.observe(&Event::Installed { name: entry.name(), path: &entry.path_in(dir) });
        Ok(())
    }

    /// Describes a result; what was not converted has been hashed already.
    fn made(&self, path: &Path, inputs: &[Input]) -> Result<Made, FetchError> {
        let dir = self.settings.dir.as_path();
        let relative = path.strip_prefix(dir).unwrap_or(path);
        let (bytes, sha256) = match inputs.iter().find(|input| input.path == path) {
            Some(input) => (input.bytes, input.sha256.clone()),
            None => hash_file(path, &self.cancel, |_| ())?,
        };
        Made::describe(dir, relative, bytes, sha256)
    }

    /// A file that nobody vouched for and that is no checkpoint must not be taken for one the next time.
    fn quarantine(&self, entry: &Entry, inputs: &[Input]) -> Result<(), FetchError> {
        for input in inputs.iter().filter(|i| !i.verified && !i.borrowed) {
            put_aside(&input.path)?;
            let now = with_suffix(&input.path, ".bad");
            let text = format!("{}: the file is now {}; nothing will use it", entry.name(), now.display());
            self.observer.observe(&Event::Note { text: &text });
        }
        Ok(())
    }

    /// Files in the weights folder that a checkpoint was, or can be, made from, and that are no part of it.
    pub(crate) fn originals(&self, entry: &Entry) -> Vec<PathBuf> {
        let dir = self.settings.dir.as_path();
        let results = entry.results_in(dir);
        let staged = entry.files().iter().map(|file| staged(self.catalog, entry, file, dir));
        staged.filter(|path| path.is_file() && !results.contains(path)).collect()
    }

    /// Deletes the originals that the receipt says are to go, in this run or in one that was killed there.
    pub(crate) fn finish_deleting(&self, entry: &Entry, receipt: Receipt) -> Result<(), FetchError> {
        if !receipt.deleting {
            return Ok(());
        }
        for path in self.originals(entry) {
            remove(&path)?;
            // Folders that only held them; one that holds something else stays.
            let folders = path.ancestors().skip(1).take_while(|f| *f != self.settings.dir);
            for folder in folders {
                if std::fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        Receipt { deleting: false, ..receipt }.write(&self.settings.dir)
    }
}
