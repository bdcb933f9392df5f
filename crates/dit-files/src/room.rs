use std::path::Path;

/// Bytes that this user may still write where `path` is, or will be: on the file system of its nearest folder that exists. `None`
/// where the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|folder| folder.exists() || folder.as_os_str().is_empty())?;
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(existing).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = existing;
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_where_a_folder_is_or_will_be() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), &folder.path().join("not/yet/there"), Path::new("not yet there"), Path::new("")] {
            assert!(free_bytes(path).is_some_and(|free| free > 0), "{}", path.display());
        }
    }
}
