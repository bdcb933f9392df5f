//! What can be wrong with a checkpoint file, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::Dtype;

/// What can be wrong with a checkpoint file. Every message says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `map`, `write`, …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] dit_files::WriteError),

    /// A file was written to while it was in use, so that it cannot be said which weights were read.
    #[error("{} was changed while it was read\n  help: run again when nothing writes to it; a new file under a new name, renamed over the old one, is safe", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },

    /// A tensor's bytes are not as many as its shape asks for.
    #[error("a {dtype} tensor of shape {shape:?} cannot hold {actual} bytes")]
    DataLength {
        /// Element type.
        dtype: Dtype,
        /// Extents.
        shape: Vec<usize>,
        /// Bytes there are.
        actual: usize,
    },

    /// Integers or booleans where floating-point values are needed.
    #[error("expected a floating-point tensor, found {dtype}")]
    NotFloat {
        /// Element type found.
        dtype: Dtype,
    },

    /// An integer or boolean type was asked for where only floating-point types can be converted to.
    #[error("weights cannot become {dtype}\n  help: choose f32, bf16, f16 or f64")]
    IntegerTarget {
        /// The element type asked for.
        dtype: Dtype,
    },

    /// A name that the source does not list.
    #[error("no tensor is named {name:?}")]
    NoSuchTensor {
        /// The name asked for.
        name: String,
    },

    /// A file of no bytes.
    #[error("{} is empty\n  help: an interrupted download leaves such a file; delete it and download again", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },

    /// A web page saved under a checkpoint's name.
    #[error("{} is a web page, not a checkpoint\n  help: the download link answered with a page (login, licence, or not found); fetch the file itself", path.display())]
    WebPage {
        /// The file.
        path: PathBuf,
    },

    /// The stand-in that git-lfs leaves where a large file was not fetched.
    #[error("{} is a git-lfs pointer, not the checkpoint itself\n  help: run `git lfs pull` in that clone", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },

    /// A file of another kind.
    #[error("{} is not a PyTorch checkpoint: {what}\n  help: {help}", path.display())]
    NotTorch {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
        /// What to do.
        help: &'static str,
    },

    /// A zip archive that is cut short, corrupt, or stored in a way that cannot be mapped.
    #[error("{}: {problem}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },

    /// The pickle inside a PyTorch checkpoint is malformed or exceeds a bound. Nothing of it was executed.
    #[error("{}: data.pkl, byte {offset}: {problem}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where in `data.pkl`.
        offset: usize,
        /// What is wrong.
        problem: String,
    },

    /// A Python object stands where a tensor is needed. It was not executed.
    #[error(
        "{name:?} is a Python object made by `{global}`, not a tensor; nothing of it was executed\n  help: if you trust the file, load it in Python and save its plain state dict: torch.save(model.state_dict(), …)"
    )]
    Opaque {
        /// Where in the file: the keys from its root, joined by dots.
        name: String,
        /// The Python class or function that would make the object.
        global: String,
    },

    /// No dictionary of tensors at the place asked for.
    #[error("{}: no state dict at {asked:?}\n  help: {help}", path.display())]
    NoStateDict {
        /// The file.
        path: PathBuf,
        /// The keys from the file's root, joined by dots; empty for the root itself.
        asked: String,
        /// What there is instead.
        help: String,
    },

    /// One name stands for two entries.
    #[error("two entries are named {name:?}; which of them counts is not clear")]
    DuplicateTensor {
        /// The name.
        name: String,
    },

    /// The name that a safetensors file keeps for its metadata.
    #[error("no tensor of a safetensors file can be named {name:?}: that is the place of the file's metadata")]
    ReservedName {
        /// The name.
        name: String,
    },

    /// A safetensors file that is cut short, corrupt or inconsistent.
    #[error("{} is not a sound safetensors file: {problem}\n  help: if it was downloaded or copied, do that again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },

    /// A metadata key of ours whose value is not understood.
    #[error("{}: metadata key {key}: {problem}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },

    /// A metadata key that is written from what is known of the weights, and not given.
    #[error(
        "the metadata key {key:?} cannot be given: it says what is known of the weights\n  help: choose a key that is not \"format\" and does not begin with \"dit.\""
    )]
    ReservedKey {
        /// The key.
        key: String,
    },

    /// A file that is neither a checkpoint nor anything known to stand in for one.
    #[error("{} is not a checkpoint: {problem}\n  help: {help}", path.display())]
    NotCheckpoint {
        /// The file or folder.
        path: PathBuf,
        /// What it lacks.
        problem: String,
        /// What to do.
        help: &'static str,
    },

    /// A `config.json` or the like beside the weights that cannot be used.
    #[error("{}: {problem}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },

    /// Values that do not make a network.
    #[error(transparent)]
    Config(#[from] dit_config::ConfigError),

    /// Tensor shapes that belong to no DiT.
    #[error("the tensors are not those of a DiT: {problem}")]
    NotDit {
        /// Which tensor, and why.
        problem: String,
    },

    /// Tensor shapes that belong to no AutoencoderKL.
    #[error("the tensors are not those of a diffusers AutoencoderKL: {problem}")]
    NotVae {
        /// Which tensor, and why.
        problem: String,
    },

    /// The number of attention heads, which no shape shows.
    #[error(
        "the checkpoint does not say how many attention heads it has, and width {hidden} with {depth} blocks is no standard model; their number divides {hidden}: {}",
        likely_heads(*hidden)
    )]
    HeadsUnknown {
        /// Token width D.
        hidden: usize,
        /// Number of blocks.
        depth: usize,
    },

    /// The latent's height and width, where the number of tokens allows several.
    #[error("the checkpoint does not say for which latent it is: {problem}\n  help: pass the image's height and width")]
    LatentUnknown {
        /// What there is instead.
        problem: String,
    },

    /// Two sources of one value disagree.
    #[error("{what}: {first} says {first_value}, {second} says {second_value}\n  help: {help}")]
    Conflict {
        /// Which value.
        what: &'static str,
        /// Where the first came from.
        first: &'static str,
        /// The first.
        first_value: String,
        /// Where the second came from.
        second: &'static str,
        /// The second.
        second_value: String,
        /// What to do.
        help: &'static str,
    },

    /// Names or shapes that differ from what the configuration asks for; every one is listed.
    #[error("{0}")]
    Mismatch(Box<crate::Mismatch>),

    /// Parts of one tensor that do not stack.
    #[error("{name} cannot be put together: {first} is {first_info}, {second} is {second_info}")]
    Parts {
        /// The tensor that they make.
        name: String,
        /// One part.
        first: String,
        /// Its element type and shape.
        first_info: String,
        /// Another.
        second: String,
        /// Its element type and shape.
        second_info: String,
    },

    /// An embedder that diffusers stores once per block, with different values.
    #[error(
        "{name} differs between block {first} and block {other}; a DiT has one for all blocks\n  help: this file was trained as another kind of model, or is corrupt"
    )]
    CopiesDiffer {
        /// The tensor's name in the original's layout.
        name: String,
        /// The first block.
        first: usize,
        /// The first block whose copy differs.
        other: usize,
    },

    /// EMA or raw weights were asked for where the file has only the other, or does not tell.
    #[error("{} has no {asked} weights: {found}", path.display())]
    NoSuchWeights {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        asked: crate::WeightsKind,
        /// What there is.
        found: String,
    },

    /// Weights with NaN or infinities.
    #[error("{}\n  help: the checkpoint is damaged or its training diverged; use an earlier one", non_finite(tensors))]
    NonFinite {
        /// Each tensor concerned, with how many of its values.
        tensors: Vec<(String, usize)>,
    },

    /// A value too large for the element type asked for.
    #[error("{name} holds {value}, which does not fit {dtype}\n  help: use bf16, which has the range of f32")]
    OutOfRange {
        /// The tensor.
        name: String,
        /// The value.
        value: f64,
        /// The element type asked for.
        dtype: Dtype,
    },

    /// A VAE whose `config.json` is needed and not there.
    #[error(
        "{}: the tensors show {shapes}, but neither the groups of its norms nor the scale of its latents\n  help: put its config.json beside it",
        path.display()
    )]
    VaeConfigNeeded {
        /// The weights.
        path: PathBuf,
        /// What the shapes show.
        shapes: String,
    },

    /// Something that the layout or format asked for cannot hold.
    #[error("cannot write {}: {problem}\n  help: {help}", path.display())]
    Unwritable {
        /// The output.
        path: PathBuf,
        /// Why.
        problem: String,
        /// What to do.
        help: &'static str,
    },

    /// libtorch refused.
    #[cfg(feature = "tch")]
    #[error("libtorch: {name}: {source}")]
    Torch {
        /// The tensor.
        name: String,
        /// libtorch's words.
        source: tch::TchError,
    },
}

/// Numbers of heads that give the sizes of head in use.
fn likely_heads(hidden: usize) -> String {
    let likely: Vec<String> = [64, 72, 32]
        .into_iter()
        .filter(|&size| hidden.is_multiple_of(size))
        .map(|size| format!("{} makes heads of {size}", hidden / size))
        .collect();
    if likely.is_empty() { "the training code or its config has it".to_owned() } else { likely.join(", ") }
}

fn non_finite(tensors: &[(String, usize)]) -> String {
    const SHOWN: usize = 6;
    let total: usize = tensors.iter().map(|(_, count)| count).sum();
    let listed: Vec<_> = tensors.iter().take(SHOWN).map(|(name, count)| format!("\n  {name}: {count}")).collect();
    let more = tensors.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!("\n  … and {more} more tensors") } else { String::new() };
    format!("{total} weights are NaN or infinite:{}{tail}", listed.concat())
}

impl Error {
    /// For `map_err`: the safetensors file at `path` has `problem`.
    pub(crate) fn safetensors(path: &Path, problem: String) -> Self {
        Self::Safetensors { path: path.to_path_buf(), problem }
    }

    /// For `map_err`: `path` could not be written.
    pub(crate) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write(dit_files::WriteError::new(path, source))
    }

    /// For `map_err`: the operating system refused `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
