use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    atomic::TEMPORARY_SUFFIX,
    is_unfinished,
    place::{folder_of, resolve, temporary_prefix},
};

/// Removes what a killed process left unfinished of `target`, a file or a folder: `.NAME.*.part` beside it, and if it is a folder,
/// every unfinished file ([`is_unfinished`]) directly in it. Returns what was removed.
///
/// A process that ends in an orderly way leaves nothing; this is for one that ends at once, on a second Ctrl-C say. Other targets'
/// unfinished files in the same folder stay. Whoever calls this must know that nobody is writing `target` meanwhile, in any
/// process: nothing tells a file that is being written from one that was left.
///
/// # Errors
/// The system's; what could be removed by then is gone. A folder that is not there has nothing unfinished.
pub fn remove_unfinished(target: &Path) -> io::Result<Vec<PathBuf>> {
    // Where links lead is where the unfinished files are.
    let target = resolve(target).unwrap_or_else(|_| target.to_path_buf());
    let prefix = temporary_prefix(&target);
    let mut removed = remove_in(&folder_of(&target), |name| belongs(name, &prefix))?;
    if target.is_dir() {
        removed.extend(remove_in(&target, |name| name.to_str().is_some_and(is_unfinished))?);
    }
    Ok(removed)
}

/// `.NAME.` + letters and digits + `.part`. No dot between: `.a.txt.Xy1.part` is unfinished of `a.txt`, not of `a`.
fn belongs(name: &OsStr, prefix: &OsStr) -> bool {
    let word = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    let word = word.and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX.as_bytes()));
    word.is_some_and(|word| !word.is_empty() && word.iter().all(u8::is_ascii_alphanumeric))
}

fn remove_in(folder: &Path, chosen: impl Fn(&OsStr) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry?;
        if chosen(&entry.file_name()) {
            // A link is removed, not what it points at.
            let gone = match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => removed.push(entry.path()),
            }
        }
    }
    removed.sort();
    Ok(removed)
}
