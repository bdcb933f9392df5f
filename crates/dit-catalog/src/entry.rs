use std::fmt;
use std::path::{Path, PathBuf};

use dit_config::StandardModel;
use serde::Deserialize;

/// The file that a downloaded VAE's weights become.
const VAE_WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
/// The file that describes a VAE.
pub(crate) const VAE_CONFIG: &str = "config.json";

/// A known checkpoint.
///
/// Invariants: the name is a plain file name, unique in its catalogue whatever the case; there is at least one file, and
/// either all files have urls or none has; a `vae` has a `config.json`; what a `dit` pairs with is a `vae` of the same
/// catalogue; a `dit` of the repository is a single file, and so are `features` wherever they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) license: String,
    pub(crate) source: Option<String>,
    pub(crate) pairs_with: Option<String>,
    pub(crate) hints: DitHints,
    pub(crate) files: Vec<CatalogFile>,
}

/// What a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A diffusion transformer: one file of weights.
    Dit,
    /// A latent codec: a folder with `config.json` and one file of weights.
    Vae,
    /// A network whose features evaluations compare: one file, kept as it is published.
    Features,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dit => "dit",
            Self::Vae => "vae",
            Self::Features => "features",
        })
    }
}

/// What the manifest says about a DiT's configuration, for what the weights' shapes leave open (the number of heads).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DitHints {
    /// The standard model that it is.
    pub model: Option<StandardModel>,
    /// The side in pixels of the pictures it was trained on.
    pub image_size: Option<usize>,
    /// Attention heads, where `model` does not say.
    pub num_heads: Option<usize>,
}

/// A file that belongs to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogFile {
    pub(crate) path: String,
    pub(crate) urls: Vec<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) sha256: Option<String>,
}

impl CatalogFile {
    /// Where the file belongs, with forward slashes and without `..`: for a downloaded checkpoint relative to wherever
    /// its originals are kept, for one of the repository relative to the weights folder.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the same bytes can be had (`http` or `https`), the preferred place first; empty for a file of the repository.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Its size, where it is known.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Its SHA-256 in 64 lower-case hexadecimal digits, where it is known.
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }
}

impl Entry {
    /// What it is called, on the command line and on the disk.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its licence, as an SPDX expression where there is one.
    pub fn license(&self) -> &str {
        &self.license
    }

    /// The page of those who published it.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The name of the VAE that a DiT was trained with; none for a VAE.
    pub fn pairs_with(&self) -> Option<&str> {
        self.pairs_with.as_deref()
    }

    /// What the manifest says about a DiT's configuration; nothing for a VAE.
    pub fn hints(&self) -> DitHints {
        self.hints
    }

    /// The files that it is made of, as they are published: at least one.
    pub fn files(&self) -> &[CatalogFile] {
        &self.files
    }

    /// Whether it is downloaded; otherwise it is part of the repository.
    pub fn is_remote(&self) -> bool {
        self.files.iter().any(|file| !file.urls.is_empty())
    }

    /// The size of all its files together, where every one is known.
    pub fn bytes(&self) -> Option<u64> {
        let sizes = self.files.iter().map(CatalogFile::bytes);
        sizes.sum()
    }

    /// What to open once it is installed: a file for a DiT or a feature network, a folder for a VAE.
    pub fn path_in(&self, weights: &Path) -> PathBuf {
        match (self.kind, self.is_remote()) {
            (Kind::Dit, true) => weights.join(format!("{}.safetensors", self.name)),
            (Kind::Vae, true) => weights.join(&self.name),
            (Kind::Dit, false) | (Kind::Features, _) => weights.join(self.files.first().map_or("", CatalogFile::path)),
            (Kind::Vae, false) => {
                let mut paths = self.files.iter().map(|file| Path::new(&file.path));
                let config = paths.find(|path| path.ends_with(VAE_CONFIG));
                weights.join(config.and_then(Path::parent).unwrap_or(Path::new("")))
            }
        }
    }

    /// Every file that must be there for it to be installed.
    pub fn results_in(&self, weights: &Path) -> Vec<PathBuf> {
        match (self.kind, self.is_remote()) {
            (Kind::Dit, true) | (Kind::Features, _) => vec![self.path_in(weights)],
            (Kind::Vae, true) => [VAE_CONFIG, VAE_WEIGHTS].map(|file| self.path_in(weights).join(file)).into(),
            (_, false) => self.files.iter().map(|file| weights.join(&file.path)).collect(),
        }
    }

    /// The first file that is missing, if any is.
    pub fn missing_in(&self, weights: &Path) -> Option<PathBuf> {
        self.results_in(weights).into_iter().find(|path| !path.is_file())
    }
}
