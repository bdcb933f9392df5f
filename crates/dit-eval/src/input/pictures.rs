//! Pictures, wherever they are kept, as uint8 (N, H, W, 3).

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use dit_data::{CropRecipe, Encoded, Limits, Source, Unlabelled};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::npy::Element;
use super::npz::{Npz, bad};
use crate::Error;

/// The array of pictures in an archive.
const PICTURES: &str = "arr_0";
/// Their labels, where there are any.
const LABELS: &str = "arr_1";

/// How pictures become those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As they are; all must be of one size.
    AsIs,
    /// Square: cropped as for training.
    Square {
        /// Side in pixels.
        side: usize,
        /// How.
        crop: CropRecipe,
    },
}

/// Pictures of one size in a fixed order. Reading never takes more memory than a batch and what is decoded ahead.
#[derive(Debug)]
pub struct Pictures {
    path: PathBuf,
    store: Store,
    fit: Fit,
    count: usize,
    height: usize,
    width: usize,
}

#[derive(Debug)]
enum Store {
    Npz(Npz),
    Labelled(Source),
    Unlabelled(Unlabelled),
}

impl Pictures {
    /// Opens, recognised by looking: an npz with `arr_0` (mapped; streamed if it is deflated), a folder or tar of pictures, or
    /// anything that [`Source`] reads.
    ///
    /// # Errors
    /// [`Error::Input`] for what is none of these, or whose array has another shape; what opening a source meets.
    pub fn open(path: &Path, fit: Fit) -> Result<Self, Error> {
        if path.is_file() && is_zip(path)? {
            return Self::of_npz(path, fit);
        }
        if path.is_dir()
            && let Some(pictures) = Unlabelled::open(path)?
        {
            return Self::of_store(path, Store::Unlabelled(pictures), fit);
        }
        match Source::open(path) {
            Ok(source) => Self::of_store(path, Store::Labelled(source), fit),
            // A tar whose pictures have no labels.
            Err(error @ dit_data::Error::Source { .. }) if path.is_file() => match Unlabelled::open(path)? {
                Some(pictures) => Self::of_store(path, Store::Unlabelled(pictures), fit),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the file at `path` begins as an archive of arrays does, whatever its name is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn are_archived(path: &Path) -> Result<bool, Error> {
        is_zip(path)
    }

    /// Whether the npz at `path` has an array of pictures.
    ///
    /// # Errors
    /// [`Error::Input`] for what is no archive, [`Error::Io`].
    pub fn are_in(path: &Path) -> Result<bool, Error> {
        Ok(Npz::open(path)?.has(PICTURES))
    }

    fn of_npz(path: &Path, fit: Fit) -> Result<Self, Error> {
        let npz = Npz::open(path)?;
        let header = npz.header(PICTURES)?;
        let (Element::U8, &[count, height, width, 3]) = (header.element, &header.shape[..]) else {
            let (element, shape) = (header.element, &header.shape);
            return Err(bad(path, format!("{PICTURES} is {element:?} {shape:?}, not uint8 (N, H, W, 3)")));
        };
        if let Fit::Square { side, .. } = fit
            && (height, width) != (side, side)
        {
            return Err(Error::NotBroughtToSize { path: path.to_owned(), height, width, side });
        }
        if count == 0 || height == 0 || width == 0 {
            return Err(bad(path, format!("{PICTURES} has no pictures: {:?}", header.shape)));
        }
        Ok(Self { path: path.to_owned(), store: Store::Npz(npz), fit, count, height, width })
    }

    fn of_store(path: &Path, store: Store, fit: Fit) -> Result<Self, Error> {
        let count = match &store {
            Store::Labelled(source) => source.len(),
            Store::Unlabelled(pictures) => pictures.len(),
            Store::Npz(_) => 0,
        };
        let mut pictures = Self { path: path.to_owned(), store, fit, count, height: 0, width: 0 };
        (pictures.height, pictures.width) = match fit {
            Fit::Square { side, .. } => (side, side),
            Fit::AsIs => pictures.decode(0).map(|(height, width, _)| (height, width))?,
        };
        Ok(pictures)
    }

    /// How many there are; at least one.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How pictures are made to fit.
    pub fn fit(&self) -> Fit {
        self.fit
    }

    /// How many pictures each class has, where labels are kept beside the pictures; classes without pictures are left out.
    ///
    /// # Errors
    /// [`Error::Input`] for labels that do not belong to the pictures.
    pub fn class_counts(&self) -> Result<Option<Vec<usize>>, Error> {
        let mut counts = std::collections::BTreeMap::new();
        match &self.store {
            Store::Npz(npz) if npz.has(LABELS) => {
                let labels = Vec::<f64>::try_from(&npz.numbers(LABELS)?.f_flatten(0, -1)?)?;
                if labels.len() != self.count {
                    let problem = format!("{LABELS} has {} labels for {} pictures", labels.len(), self.count);
                    return Err(bad(&self.path, problem));
                }
                labels.iter().for_each(|&label| *counts.entry(label as i64).or_insert(0) += 1);
            }
            Store::Labelled(source) => {
                (0..source.len())
                    .for_each(|index| *counts.entry(i64::from(source.record(index).label)).or_insert(0) += 1);
            }
            Store::Npz(_) | Store::Unlabelled(_) => return Ok(None),
        }
        Ok(Some(counts.into_values().collect()))
    }

    /// A hash of the pictures' bytes (for files, of the encoded ones), their sizes and their order.
    ///
    /// # Errors
    /// Whatever reading meets; [`Error::Input`] for an archive whose checksum is another.
    pub fn sha256(&self) -> Result<String, Error> {
        let mut hash = Sha256::new();
        // An archive's pictures are taken as they are.
        let fit = if let Store::Npz(_) = self.store { Fit::AsIs } else { self.fit };
        hash.update(format!("dit-eval pictures 1: {} {} {} {fit:?}\n", self.count, self.height, self.width));
        match &self.store {
            Store::Npz(npz) => {
                npz.read_through(PICTURES, &mut |piece| hash.update(piece))?;
            }
            Store::Labelled(_) | Store::Unlabelled(_) => {
                for start in (0..self.count).step_by(256) {
                    let each = |index: usize| -> Result<[u8; 32], Error> {
                        Ok(match self.encoded(index)? {
                            Encoded::File(bytes) => Sha256::digest(&bytes).into(),
                            Encoded::Grey { levels, .. } => Sha256::digest(&levels).into(),
                            other => Sha256::digest(format!("{other:?}")).into(),
                        })
                    };
                    let end = (start + 256).min(self.count);
                    let each: Vec<[u8; 32]> = (start..end).into_par_iter().map(each).collect::<Result<_, _>>()?;
                    each.iter().for_each(|digest| hash.update(digest));
                }
            }
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Reads from the picture `start` on.
    ///
    /// # Errors
    /// [`Error::Io`], of a deflated archive.
    pub fn reader(&self, start: usize) -> Result<PictureReader<'_>, Error> {
        let stream = match &self.store {
            Store::Npz(npz) => Some(npz.reader(PICTURES, (start * self.bytes()) as u64)?),
            Store::Labelled(_) | Store::Unlabelled(_) => None,
        };
        Ok(PictureReader { pictures: self, at: start, stream })
    }

    /// Bytes of a picture.
    fn bytes(&self) -> usize {
        self.height * self.width * 3
    }

    fn encoded(&self, index: usize) -> Result<Encoded, Error> {
        match &self.store {
            Store::Labelled(source) => Ok(source.read(index)?),
            Store::Unlabelled(pictures) => Ok(pictures.read(index)?),
            Store::Npz(_) => Err(bad(&self.path, "an archive's pictures are not encoded".to_owned())),
        }
    }

    fn name(&self, index: usize) -> String {
        match &self.store {
            Store::Labelled(source) => source.record(index).key.to_owned(),
            Store::Unlabelled(pictures) => pictures.key(index).to_owned(),
            Store::Npz(_) => format!("{index}"),
        }
    }

    /// Height, width and pixels of one encoded picture.
    fn decode(&self, index: usize) -> Result<(usize, usize, Vec<u8>), Error> {
        let decoded = self.encoded(index)?.decode(&Limits::default());
        let mut picture = decoded.map_err(|source| Error::Decode { key: self.name(index), source })?;
        if let Fit::Square { side, crop } = self.fit {
            picture = crop.apply(picture, side)?;
        }
        Ok((picture.height(), picture.width(), picture.pixels().to_vec()))
    }
}

/// Pictures in order.
pub struct PictureReader<'a> {
    pictures: &'a Pictures,
    at: usize,
    /// The values of an archive that are still to come.
    stream: Option<Box<dyn Read + Send + 'a>>,
}

impl PictureReader<'_> {
    /// The next pictures, at most `count`: uint8 (n, H, W, 3); empty at the end.
    ///
    /// # Errors
    /// [`Error::MixedSizes`], [`Error::Decode`], [`Error::Io`].
    pub fn next_batch(&mut self, count: usize) -> Result<Vec<u8>, Error> {
        let pictures = self.pictures;
        let until = self.at.saturating_add(count).min(pictures.count);
        let (from, each) = (self.at, pictures.bytes());
        let batch = match &mut self.stream {
            Some(stream) => {
                let mut batch = vec![0; (until - from) * each];
                stream.read_exact(&mut batch).map_err(Error::io("unpack", &pictures.path))?;
                batch
            }
            None => {
                let decode = |index: usize| {
                    let (height, width, pixels) = pictures.decode(index)?;
                    if (height, width) == (pictures.height, pictures.width) {
                        return Ok(pixels);
                    }
                    let expected = (pictures.height, pictures.width);
                    Err(Error::MixedSizes { key: pictures.name(index), found: (height, width), expected })
                };
                let decoded: Vec<Vec<u8>> = (from..until).into_par_iter().map(decode).collect::<Result<_, _>>()?;
                decoded.concat()
            }
        };
        self.at = until;
        Ok(batch)
    }
}

fn is_zip(path: &Path) -> Result<bool, Error> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(4).read_to_end(&mut head).map_err(Error::io("read", path))?;
    Ok(head == b"PK\x03\x04")
}
