//! Labelled pictures, wherever they are kept.

mod braces;
mod class_tars;
mod file;
mod folder;
mod idx;
mod listing;
mod members;
mod names;
mod parquet;
mod recognise;
mod tar;
mod unlabelled;
mod webdataset;

use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{Encoded, Error};
use listing::Listing;
pub use unlabelled::Unlabelled;

/// What a source was recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceKind {
    /// A folder of class folders.
    Folder,
    /// A tar of one tar for each class, as ImageNet comes.
    TarOfTars,
    /// A folder of one tar for each class.
    ClassTars,
    /// Tars of samples: a picture and its label under one name.
    WebDataset,
    /// Parquet files of pictures and labels, as Hugging Face datasets keeps them.
    Parquet,
    /// The MNIST family's two files.
    Idx,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "image folder",
            Self::TarOfTars => "tar of class tars",
            Self::ClassTars => "folder of class tars",
            Self::WebDataset => "WebDataset",
            Self::Parquet => "parquet",
            Self::Idx => "IDX",
        })
    }
}

/// One labelled picture of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its name within the source: relative, without `..` or control characters, separated by `/`. Never a path to write to.
    pub key: &'a str,
    /// An index into [`Source::class_names`].
    pub label: u32,
}

/// Where pictures are read from, by index, from any number of threads.
trait Store: Send + Sync {
    fn read(&self, index: usize, key: &str) -> Result<Encoded, Error>;

    /// Bytes of the encoded picture where that is known without reading it, else anything that changes with the data.
    fn size(&self, index: usize) -> u64;
}

/// Labelled pictures in a fixed order.
///
/// Nothing is ever unpacked to disk, and no more is held in memory than the listing and what is being read.
///
/// ```
/// use dit_data::{Limits, Source, adm_crop};
/// use rayon::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::create_dir(folder.path().join("goldfish"))?;
/// # std::fs::write(folder.path().join("goldfish/1.png"), include_bytes!("../../tests/data/pictures/grey8.png"))?;
/// let source = Source::open(folder.path())?;
/// let cropped = (0..source.len()).into_par_iter().map(|index| {
///     let picture = source.read(index)?.decode(&Limits::default())?;
///     Ok((adm_crop(picture, 64)?, source.record(index).label))
/// });
/// let cropped: Vec<_> = cropped.collect::<Result<_, Box<dyn std::error::Error + Send + Sync>>>()?;
/// assert_eq!(cropped[0].0.width(), 64);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub struct Source {
    kind: SourceKind,
    listing: Listing,
    store: Box<dyn Store>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut out = f.debug_struct("Source");
        out.field("kind", &self.kind).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Source {
    /// The source at `path`, recognised by looking at it:
    ///
    /// - a folder of class folders, or of `train` and others that hold them. Classes and files come in the order of torchvision's
    ///   `ImageFolder`; links are followed, but not in circles;
    /// - a tar of class tars (`ILSVRC2012_img_train.tar`), or a folder of class tars, in the same order as the folder that they
    ///   unpack to;
    /// - WebDataset tars: one, a folder of them, or a pattern such as `shard-{000000..000146}.tar`; by name, then as written;
    /// - parquet files of a picture column and a label column: one, a folder of them, or a pattern;
    /// - IDX files, gzipped or not: a folder with `train-images-idx3-ubyte`, or the path of an images file.
    ///
    /// Where a folder of tars or parquet files holds a training split (`train` in the name) and others, it is the training split.
    ///
    /// # Errors
    /// [`Error::Source`] for what is none of these, or holds no labelled picture; [`Error::Archive`] for a damaged file;
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let source = recognise::open(path)?;
        tracing::debug!(path = %path.display(), kind = %source.kind, records = source.len(), "opened");
        Ok(source)
    }

    fn new(kind: SourceKind, path: &Path, listing: Listing, store: impl Store + 'static) -> Result<Self, Error> {
        if listing.is_empty() {
            return Err(Error::Source {
                path: path.to_owned(),
                problem: format!("this {kind} holds no labelled picture"),
                help: "docs/precompute.md lists the layouts that are understood",
            });
        }
        Ok(Self { kind, listing, store: Box::new(store) })
    }

    /// What it was recognised as.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Records there are; at least one.
    pub fn len(&self) -> usize {
        self.listing.len()
    }

    /// Never true: a source without records does not open.
    pub fn is_empty(&self) -> bool {
        self.listing.is_empty()
    }

    /// The record at `index`.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn record(&self, index: usize) -> Record<'_> {
        self.listing.record(index)
    }

    /// The encoded picture of the record at `index`; from any thread.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Record`] if this one cannot be read; others may.
    pub fn read(&self, index: usize) -> Result<Encoded, Error> {
        if index >= self.len() {
            let problem = format!("there are only {} records", self.len());
            return Err(Error::Record { key: format!("record {index}"), problem });
        }
        self.store.read(index, self.record(index).key)
    }

    /// What each label stands for. Where the source does not tell, the labels' numbers.
    pub fn class_names(&self) -> &[String] {
        self.listing.class_names()
    }

    /// A hash over class names and every record's key, label and size, in hexadecimal: the same data in the same order have the
    /// same fingerprint wherever they lie. Asks the file system about every file of a folder.
    pub fn fingerprint(&self) -> String {
        let sizes: Vec<u64> = (0..self.len()).into_par_iter().map(|index| self.store.size(index)).collect();
        let mut hash = Sha256::new();
        let text = |hash: &mut Sha256, text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        text(&mut hash, "dit-data listing 1");
        self.class_names().iter().for_each(|name| text(&mut hash, name));
        for (index, size) in sizes.into_iter().enumerate() {
            let Record { key, label } = self.record(index);
            text(&mut hash, key);
            hash.update(label.to_le_bytes());
            hash.update(size.to_le_bytes());
        }
        hex::encode(hash.finalize())
    }
}
