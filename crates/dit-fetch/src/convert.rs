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
use crate::part::sync_dir;

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
        self.convert(entry, input, &entry.path_in(&self.settings.dir), &options)
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
                false => VaeCheckpoint::open(&folder).map(|_| ()).map_err(|e| unusable(entry, e)),
            };
        }
        let Some(result) = results.iter().find(|path| path.extension().is_some_and(|e| e == "safetensors")) else {
            return Ok(());
        };
        let options = ConvertOptions { origin: Some(origin(weights)), ..ConvertOptions::default() };
        self.convert(entry, &weights.path, result, &options)
    }

    fn convert(&self, entry: &Entry, input: &Path, result: &Path, options: &ConvertOptions) -> Result<(), FetchError> {
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
        converted.map_err(|e| unusable(entry, e))?;
        self.cancel.check()?;
        std::fs::rename(&made, result).map_err(|e| FetchError::io("rename", &made, e))?;
        sync_dir(result)?;
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

fn unusable(entry: &Entry, error: dit_weights::Error) -> FetchError {
    match error {
        dit_weights::Error::Io { action, path, source } => FetchError::io(action, &path, source),
        other => FetchError::Convert { name: entry.name().to_owned(), source: Box::new(other) },
    }
}

/// The hash of the file that a converted one says it was made from. The outer `None` means that it is no whole
/// safetensors file.
pub(crate) fn origin_of(path: &Path) -> Option<Option<String>> {
    let file = SafetensorsFile::open(path).ok()?;
    let metadata = Metadata::from_map(path, file.metadata()).ok();
    Some(metadata.and_then(|m| m.origin).map(|origin| origin.sha256))
}
