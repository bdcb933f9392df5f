//! Room on the disk.

use std::path::Path;

use dit_files::free_bytes;

use crate::error::FetchError;

/// Room left over for the file system's own needs.
const MARGIN: u64 = 16 << 20;

/// Refuses early what would not fit.
pub(crate) fn require(dir: &Path, needed: u64) -> Result<(), FetchError> {
    let Some(free) = free_bytes(dir) else { return Ok(()) };
    if needed == 0 || needed.saturating_add(MARGIN) <= free {
        Ok(())
    } else {
        Err(FetchError::DiskFull { dir: dir.to_owned(), needed: Some(needed.saturating_add(MARGIN)), free })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let later = dir.path().join("not/yet/there");
        assert!(free_bytes(&later).unwrap() > 0);
        assert!(require(&later, 1).is_ok());
        let error = require(&later, 1 << 60).unwrap_err();
        assert_eq!(error.exit_code(), 22);
        let text = error.to_string();
        assert!(text.contains("1153 PB"), "{text}");
        assert!(text.contains("--dir"), "{text}");
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_failures() {
        let full = FetchError::io("write", Path::new("/tmp/x"), std::io::ErrorKind::StorageFull.into());
        assert_eq!(full.exit_code(), 22);
        assert!(!full.to_string().contains("needed"), "{full}");
        let other = FetchError::io("write", Path::new("/tmp/x"), std::io::ErrorKind::PermissionDenied.into());
        assert_eq!(other.exit_code(), 27);
    }
}
