use std::path::Path;

use dit_files::remove_unfinished;

/// Removes what a killed process left unfinished of a file or folder of the record, which this process alone writes. What cannot be removed
/// costs its room and nothing else.
pub(super) fn remove_leftovers(target: &Path) {
    if let Err(error) = remove_unfinished(target) {
        tracing::debug!(path = %target.display(), %error, "what an interrupted run left stays");
    }
}
