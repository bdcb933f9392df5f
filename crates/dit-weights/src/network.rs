//! A checkpoint of either network.

use std::path::{Path, PathBuf};

use crate::{
    Checkpoint, Error, Layout, Metadata, ModelConfig, OpenOptions, TensorSource, VaeCheckpoint, folder, layout::is_vae,
    weights::open_weights,
};

/// A checkpoint whose network is told by its tensors.
#[derive(Debug)]
pub enum Network {
    /// A transformer.
    Dit(Box<Checkpoint>),
    /// A latent codec.
    Vae(Box<VaeCheckpoint>),
}

impl Network {
    /// Opens the file or folder at `path`, whichever network it holds. A pipeline's folder is opened as its transformer.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`VaeCheckpoint::open`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let located = folder::locate(path, "transformer")?;
        let weights = open_weights(&located.weights, options.weights)?;
        if is_vae(&weights.names) {
            VaeCheckpoint::of_weights(weights, located, None).map(|vae| Self::Vae(Box::new(vae)))
        } else {
            Checkpoint::of_weights(weights, located, options).map(|dit| Self::Dit(Box::new(dit)))
        }
    }

    /// Its configuration.
    pub fn config(&self) -> ModelConfig {
        match self {
            Self::Dit(dit) => ModelConfig::Dit(dit.config().clone()),
            Self::Vae(vae) => ModelConfig::Vae(vae.config().clone()),
        }
    }

    /// What the file says about itself.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Dit(dit) => dit.metadata(),
            Self::Vae(vae) => vae.metadata(),
        }
    }

    /// The layout that the file has.
    pub fn source_layout(&self) -> Layout {
        match self {
            Self::Dit(dit) => dit.source_layout(),
            Self::Vae(vae) => vae.source_layout(),
        }
    }

    /// The files of the weights.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Dit(dit) => dit.files(),
            Self::Vae(vae) => vae.files(),
        }
    }

    /// SHA-256 of the weights' files, in hexadecimal.
    ///
    /// # Errors
    /// As [`Digest::sha256`](crate::Digest::sha256).
    pub fn sha256(&self) -> Result<&str, Error> {
        match self {
            Self::Dit(dit) => dit.sha256(),
            Self::Vae(vae) => vae.sha256(),
        }
    }

    /// Its tensors, named as in [`Checkpoint`] or [`VaeCheckpoint`].
    pub fn tensors(&self) -> &dyn TensorSource {
        match self {
            Self::Dit(dit) => &**dit,
            Self::Vae(vae) => &**vae,
        }
    }
}
