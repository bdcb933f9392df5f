//! One fetch at a time in a folder.

use std::fs;
use std::io::Write;
use std::path::Path;

use dit_files::Lock;

use crate::error::FetchError;

/// Holds the folder until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Busy {
    _lock: Lock,
}

impl Busy {
    /// Creates `dir` if need be and takes it.
    pub(crate) fn take(dir: &Path) -> Result<Busy, FetchError> {
        fs::create_dir_all(dir).map_err(|e| FetchError::io("create", dir, e))?;
        let path = dir.join(".fetch.lock");
        let Some(lock) = Lock::try_take(&path).map_err(|e| FetchError::io("lock", &path, e))? else {
            let holder = fs::read_to_string(&path).ok().and_then(|id| id.trim().parse::<u32>().ok());
            let who = holder.map_or_else(String::new, |id| format!(" (process {id})"));
            return Err(FetchError::Busy { dir: dir.to_owned(), who });
        };
        // Only for the message to whoever comes second.
        let mut file = lock.file();
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        noted.map_err(|e| FetchError::io("write", &path, e))?;
        Ok(Busy { _lock: lock })
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
