use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A file that appears under its name only once it is whole and on the disk.
///
/// Until [`commit`](Self::commit) the bytes are in a temporary file of the same folder, which goes away with this value.
pub(crate) struct AtomicFile {
    temporary: NamedTempFile,
    target: PathBuf,
}

impl AtomicFile {
    /// Opens the temporary file beside `path`. A link at `path` is followed: what it points at will be replaced.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let target = resolve(path)?;
        let temporary = temporary_beside(&target, path)?;
        Ok(Self { temporary, target })
    }

    /// Cuts the file to `length` bytes.
    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        self.temporary.as_file().set_len(length)
    }

    /// Puts the file in its place: synchronise, rename, synchronise the folder.
    pub(crate) fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        let folder = folder_of(&self.target);
        self.temporary.persist(&self.target)?;
        // The name itself must survive a power cut too; not every file system lets a folder be opened for that.
        #[cfg(unix)]
        if let Ok(folder) = fs::File::open(&folder) {
            folder.sync_all().or_else(|error| match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(())
    }
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

/// Checks that `path` could be written now, so that a long computation does not end at a folder that is not there.
///
/// A temporary file is created in the folder and removed; `path` itself is not touched.
///
/// # Errors
/// The same as those of writing: [`Error::MissingFolder`], [`Error::NotAFolder`], [`Error::NotAFile`],
/// [`Error::Denied`], [`Error::DiskFull`], [`Error::Io`].
pub fn ensure_writable(path: &Path) -> Result<()> {
    AtomicFile::create(path).map(drop)
}

/// Creates `folder`, and those above it, unless they are there, and checks that files can be written into it.
///
/// # Errors
/// [`Error::NotAFolder`] if a file is in the way; else as in [`ensure_writable`].
pub fn ensure_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Error::NotAFolder { path: folder.to_path_buf(), folder: first_file_above(folder) }
        }
        _ => Error::writing(folder, source),
    })?;
    temporary_beside(&folder.join("probe"), folder).map(drop)
}

/// A temporary file in the folder of `target`; errors speak of `path`, as the user wrote it.
fn temporary_beside(target: &Path, path: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(target);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".part");
    // A temporary file is private by default; a picture is as readable as the user's umask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(&folder).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::MissingFolder { path: path.to_path_buf(), folder },
        io::ErrorKind::NotADirectory => Error::NotAFolder { path: path.to_path_buf(), folder },
        _ => Error::writing(path, source),
    })
}

/// The deepest part of `path` that exists: what is in the way of a folder.
fn first_file_above(path: &Path) -> PathBuf {
    let existing = path.ancestors().find(|part| part.is_file());
    existing.unwrap_or(path).to_path_buf()
}

/// The real place of `path`: links followed, and nothing there that a rename must not replace.
fn resolve(path: &Path) -> Result<PathBuf> {
    let not_a_file = |what| Error::NotAFile { path: path.to_path_buf(), what };
    match fs::canonicalize(path) {
        Ok(real) => {
            let kind = fs::metadata(&real).map_err(|source| Error::writing(path, source))?;
            if kind.is_dir() {
                return Err(not_a_file("a folder"));
            }
            // Renaming over /dev/null or a pipe would replace the device itself.
            if !kind.is_file() {
                return Err(not_a_file("a device or a pipe"));
            }
            Ok(real)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.file_name().is_none() || path.as_os_str().to_string_lossy().ends_with('/') {
                return Err(not_a_file("not the name of a file"));
            }
            Ok(path.to_path_buf())
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Error::NotAFolder { path: path.to_path_buf(), folder: first_file_above(path) })
        }
        Err(error) => Err(Error::writing(path, error)),
    }
}

/// The folder that `path` is in; `.` for a bare name.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_on_commit_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()).len(), 2);
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(&folder.path().join("a.bin")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        ensure_writable(&folder.path().join("b.bin")).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_modes_are_ordinary() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        let plain = folder.path().join("plain");
        fs::write(&real, "old").unwrap();
        fs::write(&plain, "for its mode").unwrap();
        symlink(&real, &link).unwrap();
        let mut file = AtomicFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&real), mode(&plain));
    }

    #[track_caller]
    fn check_refused(path: &Path, expected: &str) {
        let error = ensure_writable(path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn impossible_places_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        check_refused(&folder.path().join("no/a.png"), "no does not exist; create it");
        check_refused(&file.join("a.png"), "file is not a folder");
        check_refused(folder.path(), "is a folder");
        check_refused(Path::new("/"), "is a folder");
        check_refused(Path::new(""), "not the name of a file");
        check_refused(&folder.path().join("new/"), "not the name of a file");
        #[cfg(unix)]
        check_refused(Path::new("/dev/null"), "is a device");
    }

    #[test]
    fn folders_are_made_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        ensure_folder(&deep).unwrap();
        ensure_folder(&deep).unwrap();
        assert!(names(&deep).is_empty());
        fs::write(deep.join("file"), "").unwrap();
        for way in ["file", "file/c"] {
            let error = ensure_folder(&deep.join(way)).unwrap_err().to_string();
            assert!(error.contains("b/file is not a folder"), "{error}");
        }
    }
}
