//! From what was typed as a checkpoint to a path, and what the catalogue knows about it.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use dit_catalog::{Catalog, CatalogFile, Entry, Kind, WeightsDir};
use dit_config::{LatentSize, StandardModel};
use dit_weights::{Checkpoint, OpenOptions};

use crate::{recorded, run_folder, usage::Usage};

/// The catalogue, and the folder its checkpoints are in.
pub struct Library {
    catalog: Catalog,
    /// Why there is none, where there is none: a plain path can be opened all the same.
    weights: Result<WeightsDir, String>,
}

/// A checkpoint's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// The catalogue's name, or the path: what a recipe records.
    pub name: String,
    /// File or folder.
    pub path: PathBuf,
    /// What the catalogue says where shapes do not.
    pub options: OpenOptions,
    /// The catalogue's name of the codec that belongs to it.
    pub pairs_with: Option<String>,
}

impl Library {
    /// Finds the weights folder and reads its manifest; without one, the built-in manifest tells the names.
    pub fn discover() -> Result<Self> {
        match WeightsDir::discover() {
            Ok(weights) => Ok(Self { catalog: Catalog::of(&weights)?, weights: Ok(weights) }),
            Err(error) => Ok(Self { catalog: Catalog::builtin()?, weights: Err(error.to_string()) }),
        }
    }

    fn weights(&self) -> Result<&WeightsDir> {
        self.weights.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// The checkpoint to sample from when none is named.
    pub fn default_checkpoint(&self) -> Result<Located> {
        let name = self.catalog.default_checkpoint(self.weights()?)?.name().to_owned();
        self.locate(&name, Kind::Dit)
    }

    /// A path, or a name of the catalogue. What looks like a path is one; so is anything that is there and is no name.
    pub fn locate(&self, text: &str, kind: Kind) -> Result<Located> {
        self.find(text, Some(kind))
    }

    /// As [`locate`](Self::locate), whatever kind it is.
    pub fn locate_any(&self, text: &str) -> Result<Located> {
        self.find(text, None)
    }

    fn find(&self, text: &str, kind: Option<Kind>) -> Result<Located> {
        let full = recorded::expand(text);
        let path = Path::new(&full);
        if !self.catalog.contains(text) || path.components().count() > 1 {
            if path.exists() {
                return self.at_path(path);
            }
            let looks_like_a_path = path.components().count() > 1 || path.extension().is_some();
            if looks_like_a_path {
                bail!("{text} does not exist\n  help: check the path, or name a checkpoint of weights/manifest.json");
            }
        }
        let entry = match kind {
            Some(kind) => self.catalog.get_of(text, kind),
            None => self.catalog.get(text),
        };
        let entry = entry.map_err(|error| anyhow!("there is no file {text}, and {error}"))?;
        if let Some(kind) = kind.filter(|kind| *kind != entry.kind()) {
            bail!("{text} is a {}, expected a {kind}", entry.kind());
        }
        let path = self.catalog.installed(text, self.weights()?)?;
        Ok(Located {
            name: text.to_owned(),
            path,
            options: options_of(entry),
            pairs_with: entry.pairs_with().map(str::to_owned),
        })
    }

    /// The codec that the checkpoint at `beside` calls `name`: of the catalogue, or of a file or folder beside it.
    pub fn locate_codec(&self, name: &str, beside: &Path) -> Result<Located> {
        let path = beside.with_file_name(name);
        match !self.catalog.contains(name) && path.exists() {
            true => self.at_path(&path),
            false => self.locate(name, Kind::Vae),
        }
    }

    /// The codec of the catalogue's checkpoint that this one is a copy of, or was converted from, by their hashes. It is hashed itself only
    /// where it is as long as one of the catalogue.
    pub fn codec_of_copy(&self, checkpoint: &Checkpoint) -> Result<Option<&str>> {
        let find = |is_it: &dyn Fn(&CatalogFile) -> bool| {
            let entry = self.catalog.entries().iter().find(|entry| entry.files().iter().any(is_it));
            entry.and_then(Entry::pairs_with)
        };
        let of_hash = |sha256: &str| find(&|file| file.sha256() == Some(sha256));
        if let Some(codec) = checkpoint.metadata().origin.as_ref().and_then(|origin| of_hash(&origin.sha256)) {
            return Ok(Some(codec));
        }
        let [file] = checkpoint.files() else { return Ok(None) };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let as_long = |file: &CatalogFile| file.sha256().is_some() && file.bytes().is_none_or(|bytes| bytes == length);
        Ok(if find(&as_long).is_some() { of_hash(checkpoint.sha256()?) } else { None })
    }

    /// Whether a codec can be found under this name or path.
    fn may_be(&self, codec: &str) -> bool {
        self.catalog.contains(codec) || Path::new(codec).exists()
    }

    /// A path; if it is where an entry of the catalogue is installed, what is known about that still holds.
    fn at_path(&self, path: &Path) -> Result<Located> {
        let (given, place) = (path, path.canonicalize().ok());
        let installed = |entry: &&Entry| match &self.weights {
            Ok(weights) => place.is_some() && entry.path_in(weights.path()).canonicalize().ok() == place,
            Err(_) => false,
        };
        let entry = self.catalog.entries().iter().find(installed);
        // A run's folder stands for its average.
        let path = match run_folder::weights_of(path)? {
            Some(weights) => weights.average()?,
            None => path.to_owned(),
        };
        let place = path.canonicalize().ok();
        Ok(Located {
            // What knows it by this name may be read in another folder.
            name: place
                .as_ref()
                .and_then(|place| place.to_str())
                .map_or_else(|| given.display().to_string(), str::to_owned),
            options: entry.map(options_of).unwrap_or_default(),
            pairs_with: match entry {
                Some(entry) => entry.pairs_with().map(str::to_owned),
                // A run that was copied to another machine has a path that leads nowhere there.
                None => place.as_deref().and_then(run_folder::codec_of).filter(|codec| self.may_be(codec)),
            },
            path,
        })
    }
}

fn options_of(entry: &Entry) -> OpenOptions {
    let hints = entry.hints();
    OpenOptions {
        model: hints.model,
        heads: hints.num_heads,
        latent: hints.image_size.map(|side| LatentSize::square(side / 8)),
        ..OpenOptions::default()
    }
}

/// What the user said about a checkpoint goes before what the catalogue says.
pub fn told(catalog: OpenOptions, model: Option<&str>, num_heads: Option<usize>) -> Result<OpenOptions> {
    let standard = |name: &str| name.parse::<StandardModel>().map_err(|error| Usage(format!("--model: {error}")));
    let model = model.map(standard).transpose()?;
    Ok(OpenOptions { model: model.or(catalog.model), heads: num_heads.or(catalog.heads), ..catalog })
}
