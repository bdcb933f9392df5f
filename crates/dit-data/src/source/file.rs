use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Encoded, Error};

/// The largest encoded picture that is read: bounds what a hostile file can take.
const MOST_BYTES: u64 = 1 << 29;

/// A file that any number of threads read at any place.
#[derive(Clone)]
pub(super) struct SharedFile {
    file: Arc<File>,
    path: Arc<Path>,
    len: u64,
}

impl SharedFile {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "open", path: path.to_owned(), source };
        // Opening a pipe would wait for its other end.
        let metadata = path.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(io(io::Error::other("it is not a regular file")));
        }
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Self { file: Arc::new(file), path: path.into(), len })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` from `offset`.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.read_exact_at(buffer, offset).map_err(|source| self.io(source))
    }

    /// Up to `limit` bytes from `offset`.
    pub(super) fn read_up_to(&self, offset: u64, limit: usize) -> Result<Vec<u8>, Error> {
        let len = self.len.saturating_sub(offset).min(limit as u64) as usize;
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// The `size` bytes at `offset` as a picture's.
    pub(super) fn picture(&self, key: &str, offset: u64, size: u64) -> Result<Encoded, Error> {
        check_size(key, size)?;
        let mut bytes = vec![0; size as usize];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(Encoded::File(bytes))
    }

    /// Reads from `offset` on.
    pub(super) fn reader(&self, offset: u64) -> FileReader {
        FileReader { file: self.clone(), offset }
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { action: "read", path: self.path.to_path_buf(), source }
    }
}

/// A position in a [`SharedFile`].
pub(super) struct FileReader {
    file: SharedFile,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The whole file at `path` as a picture's bytes.
pub(super) fn read_picture(key: &str, path: &Path) -> Result<Encoded, Error> {
    let file = SharedFile::open(path)?;
    file.picture(key, 0, file.len())
}

fn check_size(key: &str, size: u64) -> Result<(), Error> {
    if size > MOST_BYTES {
        let problem = format!("{size} bytes are more than a picture may have ({MOST_BYTES})");
        return Err(Error::Record { key: key.to_owned(), problem });
    }
    Ok(())
}

/// What `folder` holds, in no order.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let io = |source| Error::Io { action: "list", path: folder.to_owned(), source };
    let entries = folder.read_dir().map_err(io)?;
    entries.map(|entry| Ok(entry.map_err(io)?.path())).collect()
}

/// How many files stay open at once, well below what a process may have.
const MOST_OPEN: usize = 64;

/// Files that are opened when they are needed.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// The latest used last.
    open: Mutex<VecDeque<(usize, SharedFile)>>,
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, open: Mutex::new(VecDeque::new()) }
    }

    /// The file at `index`.
    pub(super) fn get(&self, index: usize) -> Result<SharedFile, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = open.iter().position(|&(known, _)| known == index).and_then(|at| open.remove(at));
        let (_, file) = match found {
            Some(entry) => entry,
            None => (index, SharedFile::open(&self.paths[index])?),
        };
        if open.len() >= MOST_OPEN {
            open.pop_front();
        }
        open.push_back((index, file.clone()));
        Ok(file)
    }
}
