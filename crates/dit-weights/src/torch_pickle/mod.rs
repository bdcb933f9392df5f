//! Reads what Python's `torch.save` writes, without Python and without executing anything of it.
//!
//! Such a file is a zip archive: `PREFIX/data.pkl` is a pickle that describes Python objects, `PREFIX/data/KEY` are the
//! tensors' bytes; before PyTorch 1.6 it was a row of pickles with the bytes behind them. The pickle is a program for a small stack machine; in Python it may call any function there is. Here
//! it runs on a machine that builds data only ([`Value`]): the few calls that make tensors and dictionaries are
//! acted out, whatever else would be called becomes an opaque value. Every length, offset, stride and count is bounded.

mod archive;
mod global;
mod input;
mod legacy;
mod machine;
mod opcode;
mod rebuild;
mod state_dict;
mod tensor;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::archive::Archive;
pub use self::state_dict::StateDict;
use self::state_dict::StateDicts;
use self::value::{Id, Values};
pub use self::value::{Kind, Value};
use crate::{Error, file_bytes::FileBytes};

/// A hundred times the pickle of a large model's training checkpoint.
const MAX_PICKLE_BYTES: usize = 16 << 20;

/// A checkpoint written by `torch.save`: a graph of Python values, and in it dictionaries of tensors.
///
/// Opening reads the description of the tensors; their values stay in the memory-mapped file until they are read.
///
/// # Example
/// ```no_run
/// use dit_weights::{TensorSource, TorchFile};
///
/// let file = TorchFile::open("0400000.pt")?;
/// let ema = file.state_dict("ema")?;
/// for (name, info) in ema.infos() {
///     println!("{name}: {} {:?}", info.dtype, info.shape);
/// }
/// # Ok::<(), dit_weights::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TorchFile {
    contents: Arc<Contents>,
}

#[derive(Debug)]
struct Contents {
    path: PathBuf,
    bytes: FileBytes,
    values: Values,
    root: Id,
    state_dicts: StateDicts,
}

impl TorchFile {
    /// Maps the file at `path` and reads its description of the tensors.
    ///
    /// The file must not be changed while it is open: the operating system ends a program that reads mapped bytes which
    /// are no longer there.
    ///
    /// # Errors
    /// Each says what the file is instead and what to do: empty, a web page, a git-lfs pointer, cut short, corrupt,
    /// compressed, a TorchScript archive, a pickle without tensors' storages, …
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::map(path, &File::open(path).map_err(Error::io("open", path))?)
    }

    /// [`open`](Self::open) of what is opened already.
    pub(crate) fn map(path: &Path, file: &File) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(Error::io("open", path))?;
        if metadata.is_dir() {
            return Err(Error::io("open", path)(std::io::ErrorKind::IsADirectory.into()));
        }
        // Nothing can be mapped of an empty file.
        if metadata.len() == 0 {
            return Err(Error::EmptyFile { path: path.into() });
        }
        // SAFETY: that nobody shortens the file meanwhile is the documented condition of this type.
        let bytes = unsafe { FileBytes::map(file) }.map_err(Error::io("map", path))?;
        Self::parse(path.into(), bytes)
    }

    /// Reads a checkpoint that is already in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, Error> {
        Self::parse(name.into(), FileBytes::Owned(bytes))
    }

    /// Reads a bare pickle whose storages come from elsewhere, by key; `name` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Pickle`].
    pub fn from_parts(
        name: impl Into<PathBuf>,
        pickle: &[u8],
        storages: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let mut ranges = HashMap::new();
        for (key, storage) in storages {
            let start = bytes.len();
            bytes.extend_from_slice(storage);
            ranges.insert(key.as_str(), start..bytes.len());
        }
        let path = name.into();
        let (values, root) = unpickle(&path, pickle, &ranges)?;
        Ok(Self::new(path, FileBytes::Owned(bytes), values, root))
    }

    fn parse(path: PathBuf, bytes: FileBytes) -> Result<Self, Error> {
        if bytes.starts_with(legacy::MAGIC) {
            let (values, root) = legacy::read(&bytes).map_err(|fault| pickle_error(&path, fault))?;
            return Ok(Self::new(path, bytes, values, root));
        }
        refuse_other_formats(&path, &bytes)?;
        let unreadable = |problem| Error::Archive { path: path.clone(), problem };
        let archive = Archive::parse(&bytes).map_err(unreadable)?;
        let prefix = find_prefix(&path, &archive)?;
        archive.require_stored().map_err(unreadable)?;
        refuse_big_endian(&path, &bytes, &archive, &prefix)?;
        let storage_prefix = format!("{prefix}data/");
        let storages = archive
            .names()
            .filter_map(|name| Some((name.strip_prefix(&storage_prefix)?, archive.get(name)?)))
            .collect();
        let pickle = archive.get(&format!("{prefix}data.pkl")).unwrap_or_default();
        let (values, root) = unpickle(&path, &bytes[pickle], &storages)?;
        Ok(Self::new(path, bytes, values, root))
    }

    fn new(path: PathBuf, bytes: FileBytes, values: Values, root: Id) -> Self {
        let state_dicts = StateDicts::find(Value::new(&values, root));
        let contents = Contents { path, bytes, values, root, state_dicts };
        Self { contents: Arc::new(contents) }
    }

    /// The file's path, or the name it was given.
    pub fn path(&self) -> &Path {
        &self.contents.path
    }

    /// The value that `torch.save` was given.
    pub fn root(&self) -> Value<'_> {
        Value::new(&self.contents.values, self.contents.root)
    }

    /// Where the file has dictionaries of tensors: the keys from its root, joined by dots, in the file's order.
    /// A plain state dict is `""`; a training checkpoint has `"model"`, `"ema"`, `"opt.state.0"`, … At most 4096 are found.
    pub fn state_dicts(&self) -> impl Iterator<Item = &str> {
        self.contents.state_dicts.paths()
    }

    /// The dictionary of tensors at `path`, one of [`state_dicts`](Self::state_dicts).
    ///
    /// # Errors
    /// [`Error::NoStateDict`], which lists where there are some; [`Error::Opaque`] where the root is a Python object,
    /// such as a whole model; [`Error::DuplicateTensor`].
    pub fn state_dict(&self, path: &str) -> Result<StateDict, Error> {
        StateDict::new(Arc::clone(&self.contents), path)
    }
}

fn pickle_error(path: &Path, fault: machine::Fault) -> Error {
    Error::Pickle { path: path.into(), offset: fault.offset, problem: fault.problem }
}

fn unpickle(path: &Path, pickle: &[u8], storages: &HashMap<&str, Range<usize>>) -> Result<(Values, Id), Error> {
    let fault = |fault| pickle_error(path, fault);
    if pickle.len() > MAX_PICKLE_BYTES {
        let problem = format!("{} bytes are too many for a description of tensors", pickle.len());
        return Err(fault(machine::Fault { offset: 0, problem }));
    }
    machine::unpickle(pickle, storages).map_err(fault)
}

/// Tells files of other kinds apart by how they start.
fn refuse_other_formats(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let not_torch = |what, help| Error::NotTorch { path: path.into(), what, help };
    if bytes.is_empty() {
        return Err(Error::EmptyFile { path: path.into() });
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(());
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::LfsPointer { path: path.into() });
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if text.trim_ascii_start().starts_with(b"<") {
        return Err(Error::WebPage { path: path.into() });
    }
    Err(match bytes {
        [0x80, 2..=5, ..] => not_torch(
            "it is a plain Python pickle",
            "if it holds tensors, load it in Python and save their dictionary with torch.save",
        ),
        [_, _, _, _, _, _, _, _, b'{', ..] => {
            not_torch("it looks like a safetensors file", "give it the extension .safetensors")
        }
        _ => not_torch(
            "neither a zip archive nor a pickle",
            "check that this is the right file, and that its download was complete",
        ),
    })
}

/// The folder in the archive that holds `data.pkl`, with its slash.
fn find_prefix(path: &Path, archive: &Archive) -> Result<String, Error> {
    let mut prefixes = archive.names().filter_map(|name| {
        let prefix = name.strip_suffix("data.pkl")?;
        (prefix.find('/') == prefix.len().checked_sub(1)).then_some(prefix)
    });
    let prefix = prefixes.next().ok_or_else(|| Error::NotTorch {
        path: path.into(),
        what: "it is a zip archive without a data.pkl",
        help: "a checkpoint inside a zip must be unpacked first; .npz files hold arrays, not checkpoints",
    })?;
    if let Some(second) = prefixes.next() {
        let problem = format!("it holds two checkpoints, {prefix}data.pkl and {second}data.pkl");
        return Err(Error::Archive { path: path.into(), problem });
    }
    let code = format!("{prefix}code/");
    let constants = format!("{prefix}constants.pkl");
    if archive.names().any(|name| name == constants || name.starts_with(&code)) {
        return Err(Error::NotTorch {
            path: path.into(),
            what: "it is a TorchScript archive: a program, of which nothing is executed here",
            help: "in Python: torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE)",
        });
    }
    Ok(prefix.to_owned())
}

fn refuse_big_endian(path: &Path, bytes: &[u8], archive: &Archive, prefix: &str) -> Result<(), Error> {
    let Some(order) = archive.get(&format!("{prefix}byteorder")) else {
        return Ok(());
    };
    match &bytes[order] {
        b"little" => Ok(()),
        _ => Err(Error::NotTorch {
            path: path.into(),
            what: "its numbers are not in little-endian order",
            help: "load it in Python on an ordinary (little-endian) machine and save it again with torch.save",
        }),
    }
}
