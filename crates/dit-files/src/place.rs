use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{AtomicFile, WriteError, atomic::TEMPORARY_SUFFIX};

/// Checks that `path` could be written now, so that a long computation does not end at a folder that is not there.
///
/// A temporary file is created in the folder and removed; `path` itself is not touched.
///
/// # Errors
/// The same as those of writing: [`WriteError::MissingFolder`], [`WriteError::NotAFolder`], [`WriteError::NotAFile`],
/// [`WriteError::Denied`], [`WriteError::DiskFull`], [`WriteError::Io`].
pub fn ensure_writable(path: &Path) -> Result<(), WriteError> {
    AtomicFile::create(path).map(drop)
}

/// Creates `folder`, and those above it, unless they are there, and checks that files can be written into it.
///
/// # Errors
/// [`WriteError::NotAFolder`] if a file is in the way; else as in [`ensure_writable`].
pub fn ensure_folder(folder: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(folder).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            WriteError::NotAFolder { path: folder.to_path_buf(), folder: first_file_above(folder) }
        }
        _ => WriteError::new(folder, source),
    })?;
    temporary_beside(&folder.join("probe"), folder).map(drop)
}

/// Checks that `path` is none of `inputs` and lies in none of them, whatever links lead there: what is written to it would replace,
/// or become part of, what is read. Inputs that are not there are passed over.
///
/// # Errors
/// [`WriteError::Input`].
pub fn ensure_apart(path: &Path, inputs: &[&Path]) -> Result<(), WriteError> {
    let place = follow(path);
    // Of what is not there yet, the part that is.
    let real = place.ancestors().find_map(|part| {
        let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
        let rest = place.strip_prefix(part).unwrap_or(&place);
        Some(fs::canonicalize(part).ok()?.join(rest))
    });
    let Some(real) = real else { return Ok(()) };
    let holds = |input: &&&Path| fs::canonicalize(input).is_ok_and(|input| real.starts_with(input));
    match inputs.iter().find(holds) {
        Some(input) => Err(WriteError::Input { path: path.to_path_buf(), input: input.to_path_buf() }),
        None => Ok(()),
    }
}

/// A temporary file in the folder of `target`; errors speak of `path`, as the user wrote it.
pub(crate) fn temporary_beside(target: &Path, path: &Path) -> Result<NamedTempFile, WriteError> {
    let prefix = temporary_prefix(target);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX);
    let present = fs::metadata(target).ok().filter(fs::Metadata::is_file).map(|present| present.permissions());
    // A temporary file is private by default; a new picture is as readable as the user's umask says. What replaces a private
    // file is private from its first byte.
    #[cfg(unix)]
    if present.is_none() {
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    }
    let folder = folder_of(target);
    let file = builder.tempfile_in(&folder).map_err(|source| not_made(source, folder, path))?;
    // Where a file system knows no permissions, there is nothing to keep.
    #[cfg(unix)]
    if let Some(present) = present {
        let _ = file.as_file().set_permissions(present);
    }
    Ok(file)
}

/// How the names of unfinished files and folders for `target` begin; a random word and [`TEMPORARY_SUFFIX`] follow.
pub(crate) fn temporary_prefix(target: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// Why nothing temporary could be made in `folder`, for `path`.
pub(crate) fn not_made(source: io::Error, folder: PathBuf, path: &Path) -> WriteError {
    match source.kind() {
        io::ErrorKind::NotFound if folder.is_dir() => WriteError::NoFiles { path: path.to_path_buf(), folder },
        io::ErrorKind::NotFound => WriteError::MissingFolder { path: path.to_path_buf(), folder },
        io::ErrorKind::NotADirectory => WriteError::NotAFolder { path: path.to_path_buf(), folder },
        _ => WriteError::new(path, source),
    }
}

/// The deepest part of `path` that exists: what is in the way of a folder.
fn first_file_above(path: &Path) -> PathBuf {
    let existing = path.ancestors().find(|part| part.is_file());
    existing.unwrap_or(path).to_path_buf()
}

/// The real place of `path`: links followed, and nothing there that a rename must not replace.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, WriteError> {
    let not_a_file = |what| WriteError::NotAFile { path: path.to_path_buf(), what };
    let place = follow(path);
    match fs::canonicalize(&place) {
        Ok(real) => {
            let kind = fs::metadata(&real).map_err(|source| WriteError::new(path, source))?;
            if kind.is_dir() {
                return Err(not_a_file("a folder"));
            }
            // Renaming over /dev/null or a pipe would replace the device itself.
            if !kind.is_file() {
                return Err(not_a_file("a device or a pipe"));
            }
            Ok(real)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if place.file_name().is_none() || place.as_os_str().to_string_lossy().ends_with('/') {
                return Err(not_a_file("not the name of a file"));
            }
            Ok(place)
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(WriteError::NotAFolder { path: path.to_path_buf(), folder: first_file_above(&place) })
        }
        Err(error) => Err(WriteError::new(path, error)),
    }
}

/// Where links lead from `path`, though there may be nothing: `canonicalize` follows only what exists.
fn follow(path: &Path) -> PathBuf {
    /// As many as Linux follows; more are a circle, which `canonicalize` tells.
    const MAX_LINKS: usize = 40;
    let mut place = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&place) else { break };
        place = folder_of(&place).join(to);
    }
    place
}

/// The folder that `path` is in; `.` for a bare name.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_told_from_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("data/one")).unwrap();
        fs::write(at("x.npz"), "x").unwrap();
        std::os::unix::fs::symlink(at("data"), at("link")).unwrap();
        std::os::unix::fs::symlink("x.npz", at("also.npz")).unwrap();
        let inputs = [at("data"), at("x.npz"), at("missing")];
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        for (path, apart) in [
            ("y.npz", true),
            ("data.npz", true),
            ("new/folder/y.npz", true),
            ("missing", true),
            ("x.npz", false),
            ("also.npz", false),
            ("data/../x.npz", false),
            ("data", false),
            ("data/y.npz", false),
            ("data/new/y.npz", false),
            ("link/one/y.npz", false),
        ] {
            assert_eq!(ensure_apart(&at(path), &inputs).is_ok(), apart, "{path}");
        }
        // Relative paths too, with an input that the process stands in.
        assert!(ensure_apart(Path::new("stats.npz"), &[Path::new(".")]).is_err());
        assert!(ensure_apart(Path::new("stats.npz"), &[folder.path()]).is_ok());
    }
}
