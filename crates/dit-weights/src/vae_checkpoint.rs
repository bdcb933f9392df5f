//! A VAE checkpoint of any format and spelling, opened, checked, and read as diffusers names it now.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dit_config::VaeConfig;

use crate::{
    Error, Layout, Metadata, ModelConfig, TensorInfo, TensorSource, TensorView,
    check::check_tensors,
    digest::Digest,
    folder::{self, Located},
    layout::{MappedSource, canonical_vae, split_index},
    weights::{Weights, open_weights},
};

/// An AutoencoderKL checkpoint: its configuration, and its tensors with diffusers' present names and shapes.
///
/// ```no_run
/// use dit_weights::VaeCheckpoint;
///
/// let vae = VaeCheckpoint::open("sd-vae-ft-ema")?;
/// println!("latents are scaled by {}", vae.config().scaling_factor);
/// # Ok::<(), dit_weights::Error>(())
/// ```
pub struct VaeCheckpoint {
    tensors: MappedSource<Box<dyn TensorSource>>,
    config: VaeConfig,
    metadata: Metadata,
    layout: Layout,
    digest: Digest,
}

impl std::fmt::Debug for VaeCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tensors: _, config, metadata, layout, digest } = self;
        f.debug_struct("VaeCheckpoint")
            .field("config", config)
            .field("metadata", metadata)
            .field("layout", layout)
            .field("files", &digest.paths())
            .finish_non_exhaustive()
    }
}

impl VaeCheckpoint {
    /// Opens the file or diffusers folder (or a pipeline's, with its subfolder `vae`) at `path`. The configuration is the one in
    /// the file's metadata, which this toolkit writes, else that of the `config.json` beside the weights.
    ///
    /// # Errors
    /// [`Error::VaeConfigNeeded`] where there is neither: shapes show widths and depths, but not the scale of the latents, and a
    /// wrong one makes grey pictures; else as [`Checkpoint::open`](crate::Checkpoint::open).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_as(path.as_ref(), None)
    }

    /// [`open`](Self::open) with the configuration given by the caller, for weights whose file does not come with one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_config(path: impl AsRef<Path>, config: VaeConfig) -> Result<Self, Error> {
        Self::open_as(path.as_ref(), Some(config))
    }

    fn open_as(path: &Path, given: Option<VaeConfig>) -> Result<Self, Error> {
        let located = folder::locate(path, "vae")?;
        let weights = open_weights(&located.weights, None)?;
        Self::of_weights(weights, located, given)
    }

    pub(crate) fn of_weights(weights: Weights, located: Located, given: Option<VaeConfig>) -> Result<Self, Error> {
        let (tensors, layout) = canonical_vae(weights.source, &weights.names)?;
        let mut metadata = weights.metadata;
        let config = match (given, &metadata.config) {
            (Some(config), _) => config,
            (None, Some(ModelConfig::Vae(config))) => config.clone(),
            (None, Some(ModelConfig::Dit(_))) => {
                return Err(Error::NotVae { problem: "its metadata says that it is a DiT".to_owned() });
            }
            (None, None) => config_beside(&located.folder)?.ok_or_else(|| Error::VaeConfigNeeded {
                path: located.weights.first().cloned().unwrap_or_default(),
                shapes: describe_shapes(&tensors),
            })?,
        };
        check_tensors(&tensors, &config.tensors(), "the AutoencoderKL of its configuration", |_| {
            Some(format!("the tensors show {}; the configuration must be of the same file", describe_shapes(&tensors)))
        })?;
        metadata.config = Some(ModelConfig::Vae(config.clone()));
        Ok(Self { tensors, config, metadata, layout, digest: weights.digest })
    }

    /// The codec's configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// What the file says about itself. Its configuration is always there: [`config`](Self::config).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The spelling that the file has.
    pub fn source_layout(&self) -> Layout {
        self.layout
    }

    /// The files of the weights: one, or several shards.
    pub fn files(&self) -> &[PathBuf] {
        self.digest.paths()
    }

    /// SHA-256 of the weights' file, or of all shards one after another, in hexadecimal. Computed when first asked for.
    ///
    /// # Errors
    /// As [`Digest::sha256`].
    pub fn sha256(&self) -> Result<&str, Error> {
        self.digest.sha256()
    }

    /// The same, to be computed beside other work.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Names and shapes are those of [`VaeConfig::tensors`].
impl TensorSource for VaeCheckpoint {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        self.tensors.infos()
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.tensors.read(name)
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        self.tensors.why_missing(name)
    }

    fn prefetch(&self, name: &str) {
        self.tensors.prefetch(name);
    }

    fn release(&self, name: &str) {
        self.tensors.release(name);
    }
}

/// The configuration in the `config.json` of `folder`, if there is one.
fn config_beside(folder: &Path) -> Result<Option<VaeConfig>, Error> {
    let path = folder.join(folder::CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let json: serde_json::Value = folder::read_json(&path)?;
    let config = VaeConfig::from_json(&json.to_string());
    config.map(Some).map_err(|error| Error::ConfigFile { path, problem: error.to_string() })
}

/// Widths and depth of the network, for messages.
fn describe_shapes(tensors: &dyn TensorSource) -> String {
    let mut widths: BTreeMap<usize, usize> = BTreeMap::new();
    let mut layers = 0;
    for (name, info) in tensors.infos() {
        let Some((level, rest)) = name.strip_prefix("encoder.down_blocks.").and_then(split_index) else { continue };
        let Some((layer, "conv1.weight")) = rest.strip_prefix("resnets.").and_then(split_index) else { continue };
        layers = layers.max(layer.saturating_add(1));
        widths.insert(level, info.shape.first().copied().unwrap_or(0));
    }
    let widths: Vec<_> = widths.values().map(usize::to_string).collect();
    match tensors.infos().get("decoder.conv_in.weight").and_then(|info| info.shape.get(1)) {
        Some(latent) if !widths.is_empty() => {
            format!("levels of width {} with {layers} resnets each and {latent} latent channels", widths.join("/"))
        }
        _ => "no complete encoder and decoder".to_owned(),
    }
}
