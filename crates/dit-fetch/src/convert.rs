//! `.pt` and `.bin` to safetensors, by way of a folder of our own: a killed run leaves its half there, and the next one
//! clears it.

use std::io;
use std::path::{Path, PathBuf};

use dit_catalog::{CatalogFile, Entry};
use dit_config::LatentSize;
use dit_weights::{ConvertOptions, Metadata, OpenOptions, Origin, SafetensorsFile, VaeCheckpoint};

use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::install::Input;
use crate::layout::is_config;
use crate::observe::Event;
use crate::part::sync_folder_of;

/// Image pixels per latent pixel, to which the manifest's `image_size` refers.
const DOWNSAMPLING: usize = 8;

impl Fetcher<'_> {
    /// The folder in which results are made.
    fn work_dir(&self) -> PathBuf {
        self.settings.dir.join(".fetched").join("work")
    }

    /// Deletes what killed runs left.
    pub(crate) fn clear_work(&self) -> Result<(), FetchError> {
        let work = self.work_dir();
        match std::fs::remove_dir_all(&work) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FetchError::io("delete", &work, e)),
            _ => Ok(()),
        }
    }

    /// Writes `DIR/NAME.safetensors`: the EMA weights in the original's layout, with the configuration and the hash of
    /// the file that they came from.
    pub(crate) fn convert_dit(&self, entry: &Entry, inputs: &[Input]) -> Result<(), FetchError> {
        let weights = weights_of(entry, inputs)?;
        let hints = entry.hints();
        let options = ConvertOptions {
            open: OpenOptions {
                model: hints.model,
                heads: hints.num_heads,
                latent: hints.image_size.map(|side| LatentSize::square(side / DOWNSAMPLING)),
                ..OpenOptions::default()
            },
            origin: Some(origin(weights)),
            ..ConvertOptions::default()
        };
        // Several files are a folder in diffusers' layout, in which each has the place that the manifest gives it.
        let folder = self.settings.dir.join(entry.name());
        let input = if inputs.len() == 1 { weights.path.as_path() } else { folder.as_path() };
        self.convert(entry, input, inputs, &entry.path_in(&self.settings.dir), &options)
    }

    /// Writes `DIR/NAME/diffusion_pytorch_model.safetensors`, unless that is what was fetched.
    pub(crate) fn prepare_vae(&self, entry: &Entry, inputs: &[Input]) -> Result<(), FetchError> {
        let weights = weights_of(entry, inputs)?;
        let folder = entry.path_in(&self.settings.dir);
        let results = entry.results_in(&self.settings.dir);
        if results.contains(&weights.path) {
            // Files with a published hash are right; others must at least be a VAE before they are trusted.
            return match weights.verified {
                true => Ok(()),
                false => VaeCheckpoint::open(&folder).map(|_| ()).map_err(|e| failed(entry, &folder, e)),
            };
        }
        let Some(result) = results.iter().find(|path| path.extension().is_some_and(|e| e == "safetensors")) else {
            return Ok(());
        };
        let options = ConvertOptions { origin: Some(origin(weights)), ..ConvertOptions::default() };
        self.convert(entry, &weights.path, inputs, result, &options)
    }

    /// Reads `input`, which is one of the `inputs` or the folder that they are in.
    fn convert(
        &self,
        entry: &Entry,
        input: &Path,
        inputs: &[Input],
        result: &Path,
        options: &ConvertOptions,
    ) -> Result<(), FetchError> {
        // Their lengths are known by now, whatever the manifest said; the result is hardly ever longer.
        let bytes = inputs.iter().fold(0u64, |sum, input| sum.saturating_add(input.bytes));
        crate::disk::require(&self.settings.dir, bytes)?;
        let work = self.work_dir();
        std::fs::create_dir_all(&work).map_err(|e| FetchError::io("create", &work, e))?;
        let made = work.join(format!("{}.safetensors", entry.name()));
        let name = entry.name();
        let mut written = None;
        let converted = dit_weights::convert(input, &made, options, &mut |progress| {
            if written.is_none() {
                self.observer.observe(&Event::Converting { name, total: progress.total });
            }
            let bytes = progress.written.saturating_sub(written.unwrap_or(0));
            self.observer.observe(&Event::Advanced { file: name, bytes });
            written = Some(progress.written);
        });
        converted.map_err(|e| failed(entry, &made, e))?;
        self.cancel.check()?;
        std::fs::rename(&made, result).map_err(|e| FetchError::io("rename", &made, e))?;
        sync_folder_of(result)?;
        self.clear_work()
    }
}

fn weights_of<'i>(entry: &Entry, inputs: &'i [Input]) -> Result<&'i Input, FetchError> {
    let mut pairs = entry.files().iter().zip(inputs);
    let weights = pairs.find(|(file, _): &(&CatalogFile, &Input)| !is_config(file)).map(|(_, input)| input);
    weights.ok_or_else(|| FetchError::Convert {
        name: entry.name().to_owned(),
        source: "the manifest lists no file of weights for it".into(),
    })
}

fn origin(input: &Input) -> Origin {
    let name = input.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Origin { name, sha256: input.sha256.clone() }
}

/// What a failed conversion to `made` means: the disk's fault, or the file's.
fn failed(entry: &Entry, made: &Path, error: dit_weights::Error) -> FetchError {
    use dit_files::WriteError;
    let source = match error {
        dit_weights::Error::Io { action, path, source } => return FetchError::io(action, &path, source),
        dit_weights::Error::Write(WriteError::DiskFull { .. }) => io::ErrorKind::StorageFull.into(),
        dit_weights::Error::Write(WriteError::Denied { .. }) => io::ErrorKind::PermissionDenied.into(),
        dit_weights::Error::Write(WriteError::Io { source, .. }) => source,
        dit_weights::Error::Write(other) => io::Error::other(other),
        other => return FetchError::Convert { name: entry.name().to_owned(), source: Box::new(other) },
    };
    FetchError::io("write", made, source)
}

/// Whether it is the file itself that is no good: not the disk, not an interruption, and not a manifest that says too
/// little about a file that may be right.
pub(crate) fn blames_the_file(error: &FetchError) -> bool {
    use dit_weights::Error;
    let FetchError::Convert { source, .. } = error else { return false };
    source.downcast_ref::<Error>().is_some_and(|error| {
        !matches!(
            error,
            Error::HeadsUnknown { .. }
                | Error::LatentUnknown { .. }
                | Error::Conflict { .. }
                | Error::Config(_)
                | Error::VaeConfigNeeded { .. }
                | Error::Unwritable { .. }
        )
    })
}

/// The hash of the file that a converted one says it was made from. The outer `None` means that it is no whole
/// safetensors file.
pub(crate) fn origin_of(path: &Path) -> Option<Option<String>> {
    let file = SafetensorsFile::open(path).ok()?;
    let metadata = Metadata::from_map(path, file.metadata()).ok();
    Some(metadata.and_then(|m| m.origin).map(|origin| origin.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dit_catalog::Catalog;
    use dit_files::WriteError;

    #[test]
    fn the_disks_failures_are_not_taken_for_the_files() {
        let catalog = Catalog::builtin().unwrap();
        let entry = &catalog.entries()[0];
        #[track_caller]
        fn check(entry: &Entry, error: impl Into<dit_weights::Error>, exit_code: u8, blames: bool) {
            let error = failed(entry, Path::new("/tmp/made"), error.into());
            assert_eq!((error.exit_code(), blames_the_file(&error)), (exit_code, blames), "{error}");
        }
        let path = || PathBuf::from("/tmp/made");
        let write = |kind: io::ErrorKind| WriteError::new(&path(), kind.into());
        check(entry, write(io::ErrorKind::StorageFull), 22, false);
        check(entry, write(io::ErrorKind::QuotaExceeded), 22, false);
        check(entry, write(io::ErrorKind::FileTooLarge), 22, false);
        check(entry, write(io::ErrorKind::ReadOnlyFilesystem), 27, false);
        check(entry, write(io::ErrorKind::Other), 27, false);
        check(entry, WriteError::MissingFolder { path: path(), folder: "/tmp".into() }, 27, false);
        let io = |kind: io::ErrorKind| dit_weights::Error::Io { action: "map", path: path(), source: kind.into() };
        check(entry, io(io::ErrorKind::OutOfMemory), 27, false);
        check(entry, io(io::ErrorKind::StorageFull), 22, false);
        check(entry, dit_weights::Error::EmptyFile { path: path() }, 21, true);
        check(entry, dit_weights::Error::NotDit { problem: "x".to_owned() }, 21, true);
        check(entry, dit_weights::Error::LatentUnknown { problem: "x".to_owned() }, 21, false);
    }
}
