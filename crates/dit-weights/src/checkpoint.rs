//! A DiT checkpoint of any format and layout, opened, checked, and read as the original's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dit_config::{DitConfig, LatentSize, Numerics, Process, StandardModel};

use crate::{
    Error, Layout, Metadata, Mismatch, ModelConfig, TensorInfo, TensorSource, TensorView, WeightsKind,
    check::check_tensors,
    digest::Digest,
    folder::{self, Located},
    hints::{Hints, agree},
    infer::{infer_config, looks_like},
    layout::{MappedSource, canonical_dit},
    metadata::PROCESS,
    weights::{Weights, open_weights},
};

/// Largest position table that is computed for a checkpoint without one, in bytes: an image of 16,384² pixels.
const MAX_TABLE: usize = 1 << 30;

/// What a user says about a checkpoint. Everything may be left out where the checkpoint says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Attention heads.
    pub heads: Option<usize>,
    /// The standard model.
    pub model: Option<StandardModel>,
    /// EMA or raw weights of a training checkpoint; by default the EMA's where there are any.
    pub weights: Option<WeightsKind>,
    /// Classes, the null class not counted; by default one less than the label table's rows.
    pub num_classes: Option<usize>,
    /// Latent height and width, where the position table leaves them open.
    pub latent: Option<LatentSize>,
    /// Whose arithmetic the forward pass follows; by default what the checkpoint says, else the original's.
    pub numerics: Option<Numerics>,
}

impl OpenOptions {
    fn hints(&self) -> Hints {
        let Self { heads, model, weights: _, num_classes, latent, numerics } = *self;
        Hints { model, heads, num_classes, latent, numerics }
    }
}

/// A DiT checkpoint: its configuration, and its tensors with the original's names and shapes, whatever the file has.
///
/// Opening reads descriptions only (and compares the embedders that diffusers' layout copies into every block); values stay in
/// the memory-mapped file until they are read.
///
/// ```no_run
/// use dit_weights::{Checkpoint, OpenOptions, TensorSource};
///
/// let checkpoint = Checkpoint::open("DiT-XL-2-256x256.pt", &OpenOptions::default())?;
/// println!("{}: {} tensors", checkpoint.config(), checkpoint.infos().len());
/// # Ok::<(), dit_weights::Error>(())
/// ```
pub struct Checkpoint {
    tensors: MappedSource<Box<dyn TensorSource>>,
    config: DitConfig,
    metadata: Metadata,
    layout: Layout,
    digest: Digest,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tensors: _, config, metadata, layout, digest } = self;
        f.debug_struct("Checkpoint")
            .field("config", config)
            .field("metadata", metadata)
            .field("layout", layout)
            .field("files", &digest.paths())
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens the file or diffusers folder (or a pipeline's, with its subfolder `transformer`) at `path`. The format is told by
    /// the file's content, not by its name. The configuration in the file's metadata counts before a `config.json` beside it;
    /// without either it is inferred, as [`infer_config`](crate::infer_config) says.
    ///
    /// # Errors
    /// Each says what is wrong and what to do: not a checkpoint, corrupt, not a DiT; [`Error::HeadsUnknown`] and
    /// [`Error::LatentUnknown`] ask for what neither the file nor `options` says; [`Error::Conflict`] where they disagree;
    /// [`Error::Mismatch`] lists every tensor that is missing, unexpected or of another shape.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        let located = folder::locate(path.as_ref(), "transformer")?;
        let weights = open_weights(&located.weights, options.weights)?;
        Self::of_weights(weights, located, options)
    }

    pub(crate) fn of_weights(weights: Weights, located: Located, options: &OpenOptions) -> Result<Self, Error> {
        let (mut tensors, layout) = canonical_dit(weights.source, &weights.names)?;
        let mut metadata = weights.metadata;
        let config = match &metadata.config {
            Some(ModelConfig::Dit(config)) => said(config, options)?,
            Some(ModelConfig::Vae(_)) => {
                return Err(Error::NotDit { problem: "its metadata says that it is a VAE".to_owned() });
            }
            None => {
                let beside = match layout {
                    Layout::Diffusers => folder::dit_hints(&located.folder)?,
                    Layout::Original | Layout::DiffusersOld => Hints::default(),
                };
                let from_file = weights.hints.or("the training arguments", beside, folder::CONFIG)?;
                infer_config(&tensors, &options.hints().or("the option", from_file, "the checkpoint")?)?
            }
        };
        if !tensors.infos().contains_key("pos_embed") {
            add_positions(&mut tensors, &config)?;
        }
        check_tensors(&tensors, &config.tensors(), &config.to_string(), |mismatch| {
            advice(&tensors, &config, mismatch)
        })?;
        if metadata.class_names.is_none() && layout == Layout::Diffusers {
            metadata.class_names = folder::class_names(&located.folder);
        }
        check_class_names(&located.weights, &metadata, &config)?;
        check_process(&located.weights, &metadata, &config)?;
        metadata.config = Some(ModelConfig::Dit(config.clone()));
        Ok(Self { tensors, config, metadata, layout, digest: weights.digest })
    }

    /// The model's configuration.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The diffusion process to sample with: what the file says, else the original's.
    pub fn process(&self) -> Process {
        self.metadata.process.unwrap_or(Process::original(self.config.sigma))
    }

    /// What the file says about itself. Its configuration is always there: [`config`](Self::config).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The layout that the file has.
    pub fn source_layout(&self) -> Layout {
        self.layout
    }

    /// A name for each class, where the checkpoint has them.
    pub fn class_names(&self) -> Option<&[String]> {
        self.metadata.class_names.as_deref()
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

/// Names and shapes are those of [`DitConfig::tensors`], the position table included.
impl TensorSource for Checkpoint {
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

/// The configuration that the metadata says, where `options` say nothing else.
fn said(config: &DitConfig, options: &OpenOptions) -> Result<DitConfig, Error> {
    const OPTION: &str = "the option";
    const FILE: &str = "the checkpoint's metadata";
    agree("attention heads", (OPTION, options.heads), (FILE, Some(config.heads)))?;
    agree("classes", (OPTION, options.num_classes), (FILE, Some(config.num_classes)))?;
    agree("latent", (OPTION, options.latent), (FILE, Some(config.latent)))?;
    let model = options.model.map(|model| model.to_string());
    let actual = config.standard_model().map_or_else(|| config.to_string(), |model| model.to_string());
    agree("model", (OPTION, model), (FILE, Some(actual)))?;
    Ok(config.with(|spec| spec.numerics = options.numerics.unwrap_or(spec.numerics))?)
}

/// diffusers computes the position table instead of storing it.
fn add_positions<S: TensorSource>(tensors: &mut MappedSource<S>, config: &DitConfig) -> Result<(), Error> {
    let bytes = config.tokens().checked_mul(config.hidden).and_then(|numel| numel.checked_mul(4));
    if bytes.is_none_or(|bytes| bytes > MAX_TABLE) {
        let problem = format!("a position table for a latent of {} is too large to compute", config.latent);
        return Err(Error::LatentUnknown { problem });
    }
    tensors.add_positions("pos_embed".to_owned(), config.grid(), config.hidden)
}

/// What to do about a mismatch.
fn advice(tensors: &dyn TensorSource, config: &DitConfig, mismatch: &Mismatch) -> Option<String> {
    match looks_like(tensors) {
        Some(model) if config.standard_model() != Some(model) => {
            Some(format!("this looks like {model}; pass --model {model}"))
        }
        _ if mismatch.misshaped.is_empty() && mismatch.unexpected.is_empty() => {
            Some("the file is incomplete; download or save it again".to_owned())
        }
        _ => None,
    }
}

fn check_class_names(files: &[PathBuf], metadata: &Metadata, config: &DitConfig) -> Result<(), Error> {
    let named = metadata.class_names.as_ref().map_or(config.num_classes, Vec::len);
    if named == config.num_classes {
        return Ok(());
    }
    Err(Error::Metadata {
        path: files.first().cloned().unwrap_or_default(),
        key: "dit.classes",
        problem: format!("{named} names for {} classes", config.num_classes),
    })
}

/// A variance is learned by a network that has outputs for it.
fn check_process(files: &[PathBuf], metadata: &Metadata, config: &DitConfig) -> Result<(), Error> {
    match metadata.process {
        Some(process) if process.output() != config.sigma => Err(Error::Metadata {
            path: files.first().cloned().unwrap_or_default(),
            key: PROCESS,
            problem: format!("sigma is {:?}, but the network's is {:?}", process.sigma, config.sigma),
        }),
        _ => Ok(()),
    }
}
