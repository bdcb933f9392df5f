use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

/// Holds a file for one process at a time: until dropped, or until the process ends in whatever way, as the operating system lets
/// go of it then.
///
/// The file stays. Were it taken away, two processes could hold locks on two files of one name.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Locks the file at `path`, which is made if it is not there; `None` while somebody else holds it.
    ///
    /// ```
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join(".lock");
    /// let lock = dit_files::Lock::try_take(&path)?;
    /// assert!(lock.is_some());
    /// assert!(dit_files::Lock::try_take(&path)?.is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The file cannot be made, or its file system knows no locks.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// [`try_take`](Self::try_take), waiting for whoever holds it.
    ///
    /// # Errors
    /// As [`try_take`](Self::try_take).
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Ok(Self { file })
    }

    /// The file, for a note to those who come second.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that was begun by another thread has it too until it is a program of its
        // own, and what is locked is locked while anybody has it.
        let _ = self.file.unlock();
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn dropped_it_is_free_though_a_child_process_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let lock = Lock::wait(&path).unwrap();
        let of_a_child = lock.file().try_clone().unwrap();
        drop(lock);
        assert!(Lock::try_take(&path).unwrap().is_some());
        drop(of_a_child);
    }

    #[test]
    fn one_at_a_time_holds_it_and_contents_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        fs::write(&path, "a note").unwrap();
        let first = Lock::wait(&path).unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        let waiting = {
            let path = path.clone();
            thread::spawn(move || Lock::wait(&path).map(|_| ()))
        };
        drop(first);
        waiting.join().unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_some());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a note");
        assert!(Lock::try_take(&folder.path().join("no folder/a.lock")).is_err());
    }
}
