use std::path::Path;

use dit_files::free_bytes;

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
