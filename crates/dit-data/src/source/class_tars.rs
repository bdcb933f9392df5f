//! Class tars, loose or in one tar: ImageNet before it is unpacked. Records come in the order that a folder of what they unpack
//! to would have.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::file::SharedFile;
use super::listing::Listing;
use super::members::MemberStore;
use super::names::{is_picture, key, python_order};
use super::tar::{Member, Members};
use super::{Source, SourceKind};
use crate::Error;

/// A class, and its tar: a file's index and where in it the pictures are.
struct Class {
    name: Vec<u8>,
    archive: u32,
    pictures: Vec<Member>,
}

/// A folder's class tars.
pub(super) fn open_folder(folder: &Path, archives: Vec<PathBuf>) -> Result<Source, Error> {
    let read = |(path, archive): (&PathBuf, u32)| {
        let file = SharedFile::open(path)?;
        let name = path.file_stem().unwrap_or_default().as_encoded_bytes().to_vec();
        Ok(Class { name, archive, pictures: pictures(Members::new(&file))? })
    };
    let indexed: Vec<_> = archives.iter().zip(0..).collect();
    let classes = indexed.into_par_iter().map(read).collect::<Result<Vec<_>, Error>>()?;
    assemble(SourceKind::ClassTars, folder, archives, classes)
}

/// A tar of class tars.
pub(super) fn open_tar(path: &Path) -> Result<Source, Error> {
    let file = SharedFile::open(path)?;
    let mut outer = Members::new(&file);
    let mut archives = Vec::new();
    while let Some(member) = outer.next()? {
        if let Some(name) = class_name(&member.name) {
            archives.push((name.to_vec(), member));
        }
    }
    let read = |(name, member): (Vec<u8>, Member)| {
        Ok(Class { name, archive: 0, pictures: pictures(Members::within(&file, &member))? })
    };
    let classes = archives.into_par_iter().map(read).collect::<Result<Vec<_>, Error>>()?;
    assemble(SourceKind::TarOfTars, path, vec![path.to_owned()], classes)
}

/// The class that a member of this path is the tar of.
pub(super) fn class_name(member: &[u8]) -> Option<&[u8]> {
    let name = member.rsplit(|&byte| byte == b'/').next()?;
    name.strip_suffix(b".tar").filter(|stem| !stem.is_empty())
}

fn pictures(mut members: Members) -> Result<Vec<Member>, Error> {
    let mut pictures = Vec::new();
    while let Some(member) = members.next()? {
        if is_picture(&member.name) {
            pictures.push(member);
        }
    }
    // As in a folder: by folder first, then by name.
    let split = |member: &Member| {
        let at = member.name.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        (member.name[..at].to_vec(), member.name[at..].to_vec())
    };
    pictures.sort_by(|a, b| {
        let (a, b) = (split(a), split(b));
        python_order(&a.0, &b.0).then_with(|| python_order(&a.1, &b.1))
    });
    Ok(pictures)
}

fn assemble(kind: SourceKind, path: &Path, archives: Vec<PathBuf>, mut classes: Vec<Class>) -> Result<Source, Error> {
    classes.sort_by(|a, b| python_order(&a.name, &b.name));
    let mut store = MemberStore::new(archives);
    let mut records = Vec::new();
    for (class, label) in classes.iter().zip(0..) {
        for member in &class.pictures {
            store.push(class.archive, member);
            records.push((key(&[&class.name, b"/".as_slice(), &member.name].concat()), label));
        }
    }
    let class_names = classes.iter().map(|class| key(&class.name)).collect();
    Source::new(kind, path, Listing::named(path, records, class_names)?, store)
}
