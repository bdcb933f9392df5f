//! Files that appear whole or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::Error;

/// A file being written beside its final place. [`commit`](Self::commit) puts it there; dropping it removes it.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    temporary: NamedTempFile,
    destination: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will replace `destination`.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder does not exist or cannot be written.
    pub(crate) fn create(destination: &Path) -> Result<Self, Error> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".dit-").suffix(".part");
        // What `File::create` would give (the process's umask applies), not a temporary file's 0600.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder_of(destination)).map_err(Error::io("write", destination))?;
        Ok(Self { temporary, destination: destination.to_path_buf() })
    }

    /// The file to write to.
    pub(crate) fn file_mut(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Flushes to disk and renames into place.
    ///
    /// # Errors
    /// [`Error::Io`]; the destination is then as it was.
    pub(crate) fn commit(self) -> Result<(), Error> {
        let Self { temporary, destination } = self;
        temporary.as_file().sync_all().map_err(Error::io("write", &destination))?;
        temporary.persist(&destination).map_err(|e| Error::io("write", &destination)(e.error))?;
        // The rename itself must survive a power cut; where folders cannot be opened (Windows) there is nothing to sync.
        if let Ok(folder) = File::open(folder_of(&destination)) {
            folder.sync_all().map_err(Error::io("sync the folder of", &destination))?;
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
