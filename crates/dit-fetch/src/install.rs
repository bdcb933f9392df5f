//! From verified files to what the rest of the toolkit opens.

use std::path::{Path, PathBuf};

use dit_catalog::{CatalogFile, Entry, Kind};

use crate::digest::hash_file;
use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::layout::{is_config, is_safetensors};
use crate::observe::Event;
use crate::part::{remove, with_suffix};
use crate::receipt::{Made, Receipt, Source};
use crate::settings::Originals;
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
        }
    }

    /// Makes the checkpoint from its files. The order of steps is such that a process killed between any two of them
    /// leaves a state that the next run mends: result, record of the first fetch, receipt, and only then deletions.
    pub(crate) fn install(&self, entry: &Entry, inputs: &[Input], trust: &mut Trust) -> Result<(), FetchError> {
        let dir = self.settings.dir.as_path();
        let made = match entry.kind() {
            Kind::Dit => self.convert_dit(entry, inputs),
            Kind::Vae => self.prepare_vae(entry, inputs),
        };
        made.map_err(|error| self.not_usable(inputs, error))?;

        let seen = |(file, input): (&CatalogFile, &Input)| {
            let seen = Seen { bytes: input.bytes, sha256: input.sha256.clone(), from: input.from.clone() };
            (file.path().to_owned(), seen)
        };
        let files = entry.files().iter().zip(inputs);
        let first: Vec<_> = files.clone().filter(|(_, i)| !i.verified).map(seen).collect();
        for (file, seen) in &first {
            let text = format!(
                "{}/{file}: no hash is published; sha256 {} is recorded now and checked ever after",
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
        Receipt { name: entry.name().to_owned(), made, sources }.write(dir)?;
        if self.settings.originals == Originals::Delete {
            self.delete_originals(entry, inputs)?;
        }
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
    fn not_usable(&self, inputs: &[Input], error: FetchError) -> FetchError {
        for input in inputs.iter().filter(|i| !i.verified && !i.borrowed) {
            if let Err(rename) = std::fs::rename(&input.path, with_suffix(&input.path, ".bad")) {
                return FetchError::io("rename", &input.path, rename);
            }
        }
        error
    }

    fn delete_originals(&self, entry: &Entry, inputs: &[Input]) -> Result<(), FetchError> {
        let results = entry.results_in(&self.settings.dir);
        for input in inputs.iter().filter(|i| !i.borrowed && !results.contains(&i.path)) {
            remove(&input.path)?;
            // Folders that only held them; one that holds something else stays.
            let folders = input.path.ancestors().skip(1).take_while(|f| *f != self.settings.dir);
            for folder in folders {
                if std::fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}
