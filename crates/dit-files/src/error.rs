use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a file cannot be written. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The folder of the file to be written is not there.
    #[error("{}: the folder {} does not exist; create it, or choose another place", path.display(), folder.display())]
    MissingFolder {
        /// The file that was to be written.
        path: PathBuf,
        /// The folder that is missing.
        folder: PathBuf,
    },
    /// The folder is there, but takes no files, as /proc.
    #[error("{}: no file can be made in {}; choose another place", path.display(), folder.display())]
    NoFiles {
        /// The file that was to be written.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// Part of the path is a file where a folder must be.
    #[error("{}: {} is not a folder; choose another place", path.display(), folder.display())]
    NotAFolder {
        /// The file or folder that was to be made.
        path: PathBuf,
        /// What is not a folder.
        folder: PathBuf,
    },
    /// The path is something that must not be replaced: a folder, a device, a pipe.
    #[error("{}: is {what}, and cannot be replaced by a file; choose another name", path.display())]
    NotAFile {
        /// The path given.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// What is to be written is what is read, or lies in it.
    #[error("{}: it is the input {}, or lies in it; choose another place", path.display(), input.display())]
    Input {
        /// The path given.
        path: PathBuf,
        /// The input.
        input: PathBuf,
    },
    /// The file system refuses.
    #[error("{}: permission denied (or the file system is read-only); choose another place", path.display())]
    Denied {
        /// The file in question.
        path: PathBuf,
    },
    /// No room.
    #[error("{}: the disk, or your quota, is full: free some space (nothing half-written was left)", path.display())]
    DiskFull {
        /// The file that was to be written.
        path: PathBuf,
    },
    /// Any other failure of the file system.
    #[error("{}: cannot be written: {source}", path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl WriteError {
    /// A failed write of `path`, by its cause.
    pub fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path }
            }
            _ => Self::Io { path, source },
        }
    }

    /// The same error for a file that was to be renamed: a path within `from` becomes the one within `to`.
    pub fn moved(mut self, from: &Path, to: &Path) -> Self {
        let (Self::MissingFolder { path, .. }
        | Self::NoFiles { path, .. }
        | Self::NotAFolder { path, .. }
        | Self::NotAFile { path, .. }
        | Self::Input { path, .. }
        | Self::Denied { path }
        | Self::DiskFull { path }
        | Self::Io { path, .. }) = &mut self;
        if let Ok(inner) = path.strip_prefix(from) {
            *path = to.join(inner);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: io::ErrorKind, expected: &str) {
        let text = WriteError::new(Path::new("a.png"), kind.into()).to_string();
        assert!(text.starts_with("a.png: "), "{text}");
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn failed_writes_are_told_apart() {
        check(io::ErrorKind::PermissionDenied, "permission denied");
        check(io::ErrorKind::ReadOnlyFilesystem, "read-only");
        check(io::ErrorKind::StorageFull, "is full");
        check(io::ErrorKind::QuotaExceeded, "quota");
        check(io::ErrorKind::Other, "cannot be written");
    }

    #[test]
    fn errors_speak_of_the_place_that_the_user_named() {
        let error = WriteError::new(Path::new("/tmp/x.part/config.json"), io::ErrorKind::StorageFull.into());
        let text = error.moved(Path::new("/tmp/x.part"), Path::new("hub")).to_string();
        assert!(text.starts_with("hub/config.json: "), "{text}");
    }
}
