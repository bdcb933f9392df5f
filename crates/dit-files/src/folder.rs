use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    WriteError,
    atomic::{TEMPORARY_SUFFIX, sync_folder},
    place::{folder_of, not_made, temporary_prefix},
};

/// A folder that appears under its name only once all its files are in it.
///
/// Until [`commit`](Self::commit) they are in a temporary folder beside it, which goes away with this value.
#[derive(Debug)]
pub struct AtomicFolder {
    temporary: TempDir,
    target: PathBuf,
}

impl AtomicFolder {
    /// Makes the temporary folder beside `path`.
    ///
    /// # Errors
    /// Where nothing can be written.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let prefix = temporary_prefix(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX);
        // What `create_dir` would give, not a temporary folder's 0700.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let parent = folder_of(path);
        let temporary = builder.tempdir_in(&parent).map_err(|source| not_made(source, parent, path))?;
        Ok(Self { temporary, target: path.to_path_buf() })
    }

    /// The temporary folder: the place to write to, with [`AtomicFile`](crate::AtomicFile) or by whoever synchronises.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Puts the folder in its place: rename, synchronise the folder above.
    ///
    /// # Errors
    /// The system's, also where something but an empty folder is there already.
    pub fn commit(self) -> io::Result<()> {
        sync_folder(self.temporary.path())?;
        fs::rename(self.temporary.path(), &self.target)?;
        // It has moved; there is nothing left to remove.
        let _ = self.temporary.keep();
        sync_folder(&folder_of(&self.target))
    }
}
