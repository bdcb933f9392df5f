use std::path::Path;

/// Bytes that this user may still write to the file system of `folder`; `None` where it cannot be told.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(folder).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Says early that the disk is too small. No error: a file system may compress, or grow, and a full disk costs only waiting.
pub(crate) fn warn_if_short(folder: &Path, needed: u64) {
    if let Some(free) = free_bytes(folder).filter(|&free| free < needed) {
        tracing::warn!(
            "{} has {} MB free, and the latents to come take about {} MB; the run stops where the disk is full, and continues \
             once there is room",
            folder.display(),
            free / 1_000_000,
            needed.div_ceil(1_000_000)
        );
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_where_there_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).is_some_and(|free| free > 0));
        assert_eq!(free_bytes(&folder.path().join("not there")), None);
    }
}
