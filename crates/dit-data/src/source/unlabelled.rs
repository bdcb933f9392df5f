//! Pictures without classes, such as a sampler leaves: directly in a folder, or anywhere in a tar.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::file::{self, SharedFile};
use super::folder::{self, Folder};
use super::members::MemberStore;
use super::names::{is_picture, key, python_order};
use super::tar::{Members, is_tar};
use super::{Store, recognise};
use crate::{Encoded, Error};

/// Pictures without classes, in the order of their names.
///
/// Every picture that is there is one of them: a place that holds some in a way that would leave them out does not open.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("1.png"), include_bytes!("../../tests/data/pictures/grey8.png"))?;
/// let pictures = dit_data::Unlabelled::open(folder.path())?.expect("the folder has pictures");
/// assert_eq!((pictures.len(), pictures.key(0)), (1, "1.png"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Unlabelled {
    keys: Vec<String>,
    store: Box<dyn Store>,
}

impl std::fmt::Debug for Unlabelled {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Unlabelled").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Unlabelled {
    /// The pictures that lie directly in the folder, or anywhere in the tar, at `path`; none if there are none, or it is neither.
    /// Files whose names begin with a dot are no pictures.
    ///
    /// # Errors
    /// [`Error::Source`] for a folder with pictures beside folders of pictures, or beside archives, tables and IDX files of them,
    /// and for a tar in which a picture is a link; [`Error::Archive`] for a tar that is damaged or ends within a member;
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        if path.is_dir() { Self::of_folder(path) } else { Self::of_tar(path) }
    }

    fn of_folder(folder: &Path) -> Result<Option<Self>, Error> {
        let visible = |path: &PathBuf| path.file_name().is_some_and(|name| !name.as_bytes().starts_with(b"."));
        let entries: Vec<PathBuf> = file::list(folder)?.into_iter().filter(visible).collect();
        let named = |path: &&PathBuf| is_picture(path.as_os_str().as_bytes()) && path.is_file();
        let mut paths: Vec<PathBuf> =
            entries.iter().filter(named).filter_map(|path| path.file_name().map(PathBuf::from)).collect();
        paths.sort_by(|a, b| python_order(a.as_os_str().as_bytes(), b.as_os_str().as_bytes()));
        let Some(first) = paths.first() else { return Ok(None) };
        for entry in &entries {
            let inside = if entry.is_dir() {
                folder::first_picture(entry)?
            } else {
                (entry.is_file() && recognise::is_collection(entry)?).then(|| entry.clone())
            };
            if let Some(inside) = inside {
                let inside = inside.strip_prefix(folder).unwrap_or(&inside).display().to_string();
                return Err(Error::Source {
                    path: folder.to_owned(),
                    problem: format!("it holds pictures directly, such as {}, and {inside}", first.display()),
                    help: "either could be meant: move one of them elsewhere, or give the path of a folder or file within",
                });
            }
        }
        let keys = paths.iter().map(|path| key(path.as_os_str().as_bytes())).collect();
        Ok(Some(Self { keys, store: Box::new(Folder { root: folder.to_owned(), paths }) }))
    }

    fn of_tar(path: &Path) -> Result<Option<Self>, Error> {
        let file = SharedFile::open(path)?;
        if !is_tar(&file.read_up_to(0, 512)?) {
            return Ok(None);
        }
        let mut found = Vec::new();
        let mut members = Members::new(&file);
        while let Some(member) = members.next()? {
            if is_visible_picture(&member.name) {
                found.push(member);
            }
        }
        if let Some(name) = members.passed_over().iter().find(|name| is_visible_picture(name)) {
            return Err(Error::Source {
                path: path.to_owned(),
                problem: format!("{} is a link or a sparse file, and not there itself", key(name)),
                help: "pack it anew, with tar's --dereference and --hard-dereference",
            });
        }
        found.sort_by(|a, b| python_order(&a.name, &b.name));
        let mut store = MemberStore::new(vec![path.to_owned()]);
        found.iter().for_each(|member| store.push(0, member));
        let keys: Vec<String> = found.iter().map(|member| key(&member.name)).collect();
        Ok((!keys.is_empty()).then(|| Self { keys, store: Box::new(store) }))
    }

    /// How many there are; at least one.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The name of the picture at `index`: as [`Record::key`](super::Record::key); empty if there are not that many.
    pub fn key(&self, index: usize) -> &str {
        self.keys.get(index).map_or("", String::as_str)
    }

    /// The encoded picture at `index`; from any thread.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Record`] if this one cannot be read.
    pub fn read(&self, index: usize) -> Result<Encoded, Error> {
        let Some(key) = self.keys.get(index) else {
            let problem = format!("there are only {} pictures", self.len());
            return Err(Error::Record { key: format!("picture {index}"), problem });
        };
        self.store.read(index, key)
    }
}

fn is_visible_picture(name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    is_picture(name) && !last.starts_with(b".")
}
