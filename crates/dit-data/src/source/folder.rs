use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dit_files::is_marked_as_cache;
use rayon::prelude::*;

use super::listing::Listing;
use super::names::{is_picture, key, python_order};
use super::{Source, SourceKind, Store, file};
use crate::{Encoded, Error};

/// So many folders without pictures are named.
const MOST_NAMED: usize = 5;

/// Pictures at `paths` below `root`.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) paths: Vec<PathBuf>,
}

impl Store for Folder {
    fn read(&self, index: usize, key: &str) -> Result<Encoded, Error> {
        file::read_picture(key, &self.root.join(&self.paths[index]))
    }

    fn size(&self, index: usize) -> u64 {
        self.root.join(&self.paths[index]).metadata().map_or(u64::MAX, |metadata| metadata.len())
    }
}

/// The folders in `folder`, links to folders among them, in Python's order: but for caches, as `dit-cli evaluate` leaves beside a
/// class that it measured, and for hidden ones without pictures, which torchvision would refuse the whole for.
pub(super) fn subfolders(folder: &Path) -> Result<Vec<OsString>, Error> {
    let mut names = Vec::new();
    for path in file::list(folder)? {
        let Some(name) = path.file_name().filter(|_| path.is_dir() && !is_marked_as_cache(&path)) else { continue };
        if !name.as_bytes().starts_with(b".") || !pictures(folder, name)?.is_empty() {
            names.push(name.to_owned());
        }
    }
    names.sort_by(|a, b| python_order(a.as_bytes(), b.as_bytes()));
    Ok(names)
}

/// A folder whose subfolders are classes, listed as torchvision's `ImageFolder` lists it.
///
/// # Errors
/// [`Error::Source`] if a class has no picture, as torchvision refuses too: leaving it out would shift the labels.
pub(super) fn open(root: &Path) -> Result<Source, Error> {
    let classes = subfolders(root)?;
    let listed = classes.par_iter().map(|class| pictures(root, class)).collect::<Result<Vec<_>, Error>>()?;
    let empty = classes.iter().zip(&listed).filter(|(_, paths)| paths.is_empty());
    let empty: Vec<String> = empty.map(|(class, _)| key(class.as_bytes())).collect();
    if !empty.is_empty() && empty.len() == classes.len() {
        let (shown, more) = (&empty[..empty.len().min(MOST_NAMED)], empty.len().saturating_sub(MOST_NAMED));
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(Error::Source {
            path: root.to_owned(),
            problem: format!("it holds no labelled picture: none in {}{more}", shown.join(", ")),
            help: "each folder is a class, and pictures are known by their names, which end in .png, .jpg and the like",
        });
    }
    if !empty.is_empty() {
        return Err(Error::Source {
            path: root.to_owned(),
            problem: format!("no picture in {}", empty.join(", ")),
            help: "each folder is a class; remove those that are none",
        });
    }
    let class_names = classes.iter().map(|class| key(class.as_bytes())).collect();
    let labels = listed.iter().zip(0..).flat_map(|(paths, label)| paths.iter().map(move |_| label));
    let paths: Vec<PathBuf> = listed.iter().flatten().cloned().collect();
    let records = paths.iter().map(|path| key(path.as_os_str().as_bytes())).zip(labels).collect();
    let listing = Listing::named(root, records, class_names)?;
    Source::new(SourceKind::Folder, root, listing, Folder { root: root.to_owned(), paths })
}

/// Any picture in `folder` or below it, but for hidden folders.
pub(super) fn first_picture(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let mut found = Vec::new();
    walk(folder, PathBuf::new(), &mut Vec::new(), &mut found)?;
    let visible =
        |path: &Path| !path.as_os_str().as_bytes().split(|&byte| byte == b'/').any(|part| part.starts_with(b"."));
    let all = found.into_iter().flat_map(|(folder, names)| names.into_iter().map(move |name| folder.join(name)));
    Ok(all.filter(|path| visible(path)).map(|path| folder.join(path)).min())
}

/// The pictures below one class, relative to `root`: folders by their whole path, then files by name, as `sorted(os.walk(…))`.
fn pictures(root: &Path, class: &OsStr) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    walk(root, PathBuf::from(class), &mut Vec::new(), &mut found)?;
    let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
    found.sort_by(|(a, _), (b, _)| python_order(&bytes(a), &bytes(b)));
    Ok(found.into_iter().flat_map(|(folder, names)| names.into_iter().map(move |name| folder.join(name))).collect())
}

/// Adds `folder` and all below it, with the names of their pictures. `above` identifies the folders that lead here: a link back to one
/// of them is not followed.
fn walk(
    root: &Path,
    folder: PathBuf,
    above: &mut Vec<(u64, u64)>,
    found: &mut Vec<(PathBuf, Vec<OsString>)>,
) -> Result<(), Error> {
    let path = root.join(&folder);
    let metadata = path.metadata().map_err(|source| Error::Io { action: "list", path: path.clone(), source })?;
    let identity = (metadata.dev(), metadata.ino());
    if above.contains(&identity) {
        tracing::debug!(path = %path.display(), "a link in a circle is not followed");
        return Ok(());
    }
    above.push(identity);
    let mut names = Vec::new();
    for entry in file::list(&path)? {
        let Some(name) = entry.file_name() else { continue };
        if entry.is_dir() {
            walk(root, folder.join(name), above, found)?;
        } else if is_picture(name.as_bytes()) {
            names.push(name.to_owned());
        }
    }
    above.pop();
    names.sort_by(|a, b| python_order(a.as_bytes(), b.as_bytes()));
    found.push((folder, names));
    Ok(())
}
