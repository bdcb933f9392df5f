use std::{fs, path::Path};

use crate::{WriteError, write_atomically};

/// The file that says so, and how it begins: <https://bford.info/cachedir/>.
const TAG: &str = "CACHEDIR.TAG";
const SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Marks `folder` as one that can be made again, of `what`, for whoever lists or copies what is around it. A folder that is marked
/// already stays as it is.
///
/// # Errors
/// As [`write_atomically`].
pub fn mark_as_cache(folder: &Path, what: &str) -> Result<(), WriteError> {
    if is_marked_as_cache(folder) {
        return Ok(());
    }
    let text = [SIGNATURE, b"\n# ", what.as_bytes(), b"\n"].concat();
    write_atomically(&folder.join(TAG), &text)
}

/// Whether `folder` says of itself that it can be made again.
pub fn is_marked_as_cache(folder: &Path) -> bool {
    fs::read(folder.join(TAG)).is_ok_and(|text| text.starts_with(SIGNATURE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_folder_is_known_and_marked_once() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        assert!(!is_marked_as_cache(here) && !is_marked_as_cache(&here.join("missing")));
        fs::write(here.join(TAG), "a file of this name").unwrap();
        assert!(!is_marked_as_cache(here));
        mark_as_cache(here, "features").unwrap();
        mark_as_cache(here, "others").unwrap();
        assert!(is_marked_as_cache(here));
        assert!(fs::read_to_string(here.join(TAG)).unwrap().ends_with("55\n# features\n"));
    }
}
