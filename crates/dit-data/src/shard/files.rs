//! Small files that appear whole or not at all.

use std::{fs::File, io, io::Write, path::Path};

use crate::Error;

/// What temporary files of an interrupted process are called; dit-weights' writer uses the same.
pub(crate) const TEMPORARY_PREFIX: &str = ".dit-";
/// See [`TEMPORARY_PREFIX`].
pub(crate) const TEMPORARY_SUFFIX: &str = ".part";

/// Replaces `name` in `folder` by `bytes`: temporary file, sync, rename, sync of the folder.
pub(crate) fn write_atomically(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = folder.join(name);
    let write = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // the umask applies
        let mut temporary = builder.tempfile_in(folder)?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(&path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(|source| Error::Io { action: "write", path: path.clone(), source })
}

/// Makes renames and removals in `folder` survive a power cut; where folders cannot be opened there is nothing to sync.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(_) => Ok(()),
    }
}
