use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, PersistError};

use crate::{
    WriteError,
    place::{folder_of, resolve, temporary_beside},
};

/// How the names of unfinished files end; they begin with a dot.
pub(crate) const TEMPORARY_SUFFIX: &str = ".part";
/// How the names of parts end: no other program's, as those of files that are being downloaded are.
const PART_SUFFIX: &str = ".interrupted";

/// Whether a file of this name is one that a killed process left unfinished, and nobody else will finish. To take those away
/// that belong to one target, there is [`remove_unfinished`](crate::remove_unfinished).
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY_SUFFIX)
}

/// Replaces the file at `path` by `bytes`.
///
/// # Errors
/// As [`AtomicFile::create`], and when the disk refuses.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).and_then(|()| file.commit()).map_err(|source| WriteError::new(path, source))
}

/// A file that appears under its name only once it is whole and on the disk.
///
/// Until [`commit`](Self::commit) the bytes are in a temporary file of the same folder, which goes away with this value. A file
/// that is replaced hands on its permissions; a new one has those that the user's umask leaves.
#[derive(Debug)]
pub struct AtomicFile {
    temporary: NamedTempFile,
    target: PathBuf,
}

impl AtomicFile {
    /// Opens the temporary file beside `path`. A link at `path` is followed: what it points at will be replaced.
    ///
    /// # Errors
    /// Where nothing can be written, or `path` is something that a file must not replace.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let target = resolve(path)?;
        let temporary = temporary_beside(&target, path)?;
        Ok(Self { temporary, target })
    }

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.temporary.as_file().set_len(length)
    }

    /// The file to write to.
    pub fn file_mut(&mut self) -> &mut fs::File {
        self.temporary.as_file_mut()
    }

    /// Puts the file in its place: synchronise, rename, synchronise the folder.
    ///
    /// # Errors
    /// The system's; what was at the path before is then still there.
    pub fn commit(self) -> io::Result<()> {
        let target = self.target.clone();
        self.persist(&target)
    }

    /// Puts it beside its place, as `NAME.interrupted`: what there is of a file that will not be whole, for a reader who knows
    /// that. Nothing is replaced: where that name is taken, by another part or by anything else, it is `NAME.interrupted-2`, and
    /// so on. Returns where it is.
    ///
    /// # Errors
    /// The system's.
    pub fn commit_partial(self) -> io::Result<PathBuf> {
        self.temporary.as_file().sync_all()?;
        let mut temporary = self.temporary;
        let mut number = 1;
        loop {
            let path = part(&self.target, number);
            match temporary.persist_noclobber(&path) {
                Ok(_) => {}
                Err(PersistError { file, .. }) if is_taken(&path) => {
                    temporary = file;
                    number += 1;
                    continue;
                }
                // Some file systems know only a rename that may replace.
                Err(PersistError { file, .. }) => drop(file.persist(&path)?),
            }
            sync_folder(&folder_of(&path))?;
            return Ok(path);
        }
    }

    fn persist(self, path: &Path) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        self.temporary.persist(path)?;
        sync_folder(&folder_of(path))
    }
}

/// The parts of the file at `path` that [`AtomicFile::commit_partial`] kept: beside it, or beside what a link at `path` points at.
pub fn parts_of(path: &Path) -> Vec<PathBuf> {
    let target = resolve(path).unwrap_or_else(|_| path.to_path_buf());
    (1..).map(|number| part(&target, number)).take_while(|part| is_taken(part)).collect()
}

fn part(target: &Path, number: u32) -> PathBuf {
    let mut name = target.as_os_str().to_os_string();
    name.push(PART_SUFFIX);
    if number > 1 {
        name.push(format!("-{number}"));
    }
    PathBuf::from(name)
}

/// Whether anything is there, a link that leads nowhere included.
fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Makes renames and removals in `folder` survive a power cut. Not every system lets a folder be opened for that; where it
/// does not, there is nothing to do.
///
/// # Errors
/// The system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Ok(folder) = fs::File::open(folder) {
        folder.sync_all().or_else(|error| match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.temporary.seek(position)
    }
}
