//! One fetch at a time in a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::FetchError;

/// Holds the folder until dropped, or until the process ends in whatever way: the operating system lets go of the lock.
#[derive(Debug)]
pub(crate) struct Busy {
    _file: File,
}

impl Busy {
    /// Creates `dir` if need be and takes it.
    pub(crate) fn take(dir: &Path) -> Result<Busy, FetchError> {
        std::fs::create_dir_all(dir).map_err(|e| FetchError::io("create", dir, e))?;
        let path = dir.join(".fetch.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| FetchError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let who = holder.trim().parse::<u32>().map_or_else(|_| String::new(), |id| format!(" (process {id})"));
                return Err(FetchError::Busy { dir: dir.to_owned(), who });
            }
            Err(TryLockError::Error(e)) => return Err(FetchError::io("lock", &path, e)),
        }
        // Only for the message to whoever comes second.
        let noted = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        noted.map_err(|e| FetchError::io("write", &path, e))?;
        Ok(Busy { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/weights");
        let first = Busy::take(&folder).unwrap();
        let error = Busy::take(&folder).unwrap_err();
        assert_eq!(error.exit_code(), 25);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Busy::take(&folder).unwrap();
    }
}
