//! Which kind of source a path is.

use std::path::{Path, PathBuf};

use super::file::{self, SharedFile};
use super::names::{is_picture, python_order};
use super::tar::{Members, is_tar};
use super::{Source, braces, class_tars, folder, idx, parquet, webdataset};
use crate::Error;

/// Enough of a file to know it by.
const HEAD: usize = 512;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Tar,
    Parquet,
    Idx,
    Gzip,
    Other,
}

pub(super) fn open(path: &Path) -> Result<Source, Error> {
    let pattern = path.to_str().filter(|text| text.contains('{'));
    match pattern {
        Some(pattern) if !path.exists() => open_pattern(path, pattern),
        _ if path.is_dir() => open_folder(path),
        _ => open_files(path, vec![path.to_owned()]),
    }
}

fn open_pattern(path: &Path, pattern: &str) -> Result<Source, Error> {
    let names = braces::expand(pattern).ok_or_else(|| Error::Source {
        path: path.to_owned(),
        problem: "the pattern is not understood".to_owned(),
        help: "write ranges as {000000..000146} and choices as {a,b}",
    })?;
    let paths: Vec<PathBuf> = names.into_iter().map(PathBuf::from).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !path.is_file()).collect();
    if let [first, ..] = missing[..] {
        return Err(Error::Source {
            path: path.to_owned(),
            problem: format!(
                "{} of its {} files are missing, the first of them {}",
                missing.len(),
                paths.len(),
                first.display()
            ),
            help: "fetch them, or narrow the range",
        });
    }
    open_files(path, paths)
}

/// One file, or several of one kind.
fn open_files(path: &Path, paths: Vec<PathBuf>) -> Result<Source, Error> {
    let Some(first) = paths.first() else {
        return Err(unknown(path, "it stands for no file"));
    };
    match (content(first)?, paths.len()) {
        (Content::Tar, 1) if holds_tars(first)? => class_tars::open_tar(first),
        (Content::Tar, _) => webdataset::open(path, paths),
        (Content::Parquet, _) => parquet::open(path, paths),
        (Content::Idx, 1) => idx::open(first),
        (Content::Gzip, 1) if is_idx_gzip(first) => idx::open(first),
        (Content::Gzip, _) => Err(Error::Source {
            path: path.to_owned(),
            problem: "it is gzipped, and cannot be read at random".to_owned(),
            help: "unpack it with gunzip first",
        }),
        _ => Err(unknown(path, "it is no tar, parquet or IDX file")),
    }
}

fn open_folder(path: &Path) -> Result<Source, Error> {
    let mut files: Vec<PathBuf> = file::list(path)?.into_iter().filter(|path| path.is_file()).collect();
    let bytes = |path: &PathBuf| path.as_os_str().as_encoded_bytes().to_vec();
    files.sort_by(|a, b| python_order(&bytes(a), &bytes(b)));
    let with = |extension: &str| -> Vec<PathBuf> {
        let named = |path: &&PathBuf| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        training(files.iter().filter(named).cloned().collect())
    };
    for split in ["train", "t10k"] {
        let images =
            |path: &&PathBuf| path.file_name().is_some_and(|name| idx::is_images_name(&name.to_string_lossy(), split));
        if let Some(images) = files.iter().find(images) {
            return idx::open(images);
        }
    }
    let parquets = with("parquet");
    if !parquets.is_empty() {
        return parquet::open(path, parquets);
    }
    let tars = with("tar");
    match &tars[..] {
        [] => {}
        [first] if holds_tars(first)? => return class_tars::open_tar(first),
        [first, ..] if webdataset::has_labels(first)? => return webdataset::open(path, tars),
        _ => return class_tars::open_folder(path, tars),
    }
    let folders = folder::subfolders(path)?;
    let is_split = |name: &str| matches!(name, "train" | "val" | "valid" | "validation" | "test" | "data");
    let splits: Vec<&str> = folders.iter().filter_map(|name| name.to_str().filter(|name| is_split(name))).collect();
    if splits.len() == folders.len()
        && let Some(inner) = ["train", "data"].into_iter().find(|name| splits.contains(name))
    {
        return open_folder(&path.join(inner));
    }
    let named = |path: &&PathBuf| path.file_name().is_some_and(|name| is_picture(name.as_encoded_bytes()));
    let visible = |path: &&PathBuf| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let direct = files.iter().filter(named).filter(visible).count();
    if folders.is_empty() && direct > 0 {
        return Err(Error::Source {
            path: path.to_owned(),
            problem: format!("it holds {direct} picture{} directly", if direct == 1 { "" } else { "s" }),
            help: "put them into a folder for each class within it, or into one, for a model without labels",
        });
    }
    if folders.is_empty() {
        return Err(unknown(path, "it has no class folders, tars, parquet or IDX files"));
    }
    folder::open(path)
}

fn unknown(path: &Path, problem: &str) -> Error {
    Error::Source {
        path: path.to_owned(),
        problem: problem.to_owned(),
        help: "give a folder of class folders (train/goldfish/1.jpg), ImageNet's tar, WebDataset tars, parquet files or an IDX images file",
    }
}

/// The training split, where some of the names have `train` as a word; else all.
fn training(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_training = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.split(|c: char| !c.is_alphanumeric()).any(|word| word == "train")
    };
    let chosen: Vec<PathBuf> = paths.iter().filter(|path| is_training(path)).cloned().collect();
    if chosen.is_empty() { paths } else { chosen }
}

fn content(path: &Path) -> Result<Content, Error> {
    let head = SharedFile::open(path)?.read_up_to(0, HEAD)?;
    Ok(match &head[..] {
        [b'P', b'A', b'R', b'1', ..] => Content::Parquet,
        [0x1F, 0x8B, ..] => Content::Gzip,
        head if idx::is_pictures(head) => Content::Idx,
        head if is_tar(head) => Content::Tar,
        _ => Content::Other,
    })
}

/// Whether this file is an archive, a table or an IDX file, whatever it holds.
pub(super) fn is_collection(path: &Path) -> Result<bool, Error> {
    Ok(match content(path)? {
        Content::Tar | Content::Parquet | Content::Idx => true,
        Content::Gzip => is_idx_gzip(path),
        Content::Other => false,
    })
}

/// Whether a gzipped file goes by the name of an IDX file of pictures.
fn is_idx_gzip(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("idx3"))
}

/// Whether an archive's first file is itself an archive.
fn holds_tars(path: &Path) -> Result<bool, Error> {
    let file = SharedFile::open(path)?;
    let Some(first) = Members::new(&file).next()? else { return Ok(false) };
    let named = class_tars::class_name(&first.name).is_some();
    Ok(named && is_tar(&file.read_up_to(first.offset, first.size.min(HEAD as u64) as usize)?))
}
