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
        "{name:?} is a Python object made by `{global}`, not a tensor; nothing of it was executed\n  help: in Python, load the file and save its plain state dict: torch.save(model.state_dict(), …)"
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

    /// One name stands for two tensors.
    #[error("two tensors are named {name:?}")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
}

impl Error {
    /// For `map_err`: the operating system refused `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
