//! IDX: an array of bytes behind a header of big-endian extents.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::file::SharedFile;
use super::listing::Listing;
use super::{Source, SourceKind, Store};
use crate::{Encoded, Error};

/// What a gzipped file may unpack to, in memory.
const MOST_UNPACKED: u64 = 1 << 30;

/// An array of bytes: of extents (n) for labels, (n, height, width) for pictures.
struct Array {
    extents: Vec<u32>,
    data: Data,
}

/// Where an array's bytes are.
enum Data {
    Memory(Vec<u8>),
    /// After the header's bytes.
    File(SharedFile, u64),
}

struct Pictures {
    width: usize,
    height: usize,
    data: Data,
}

impl Store for Pictures {
    fn read(&self, index: usize, _key: &str) -> Result<Encoded, Error> {
        let size = self.width * self.height;
        let levels = match &self.data {
            Data::Memory(bytes) => bytes[index * size..][..size].to_vec(),
            Data::File(file, start) => {
                let mut levels = vec![0; size];
                file.read_exact_at(&mut levels, start + (index * size) as u64)?;
                levels
            }
        };
        Ok(Encoded::Grey { width: self.width, height: self.height, levels })
    }

    fn size(&self, _index: usize) -> u64 {
        (self.width * self.height) as u64
    }
}

/// Whether `name` is that of a split's images file, as MNIST and its relatives call it.
pub(super) fn is_images_name(name: &str, split: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_prefix(split).is_some_and(|rest| matches!(rest, "-images-idx3-ubyte" | "-images.idx3-ubyte"))
}

/// Whether `bytes` begin an IDX file of pictures.
pub(super) fn is_pictures(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, 0, 8, 3])
}

/// The pictures in `images`, and the labels beside them.
pub(super) fn open(images: &Path) -> Result<Source, Error> {
    let labels_path = labels_beside(images)?;
    let Array { extents, data } = Array::open::<3>(images)?;
    let [count, height, width] = extents[..] else {
        return Err(bad(images, "its extents are not three".to_owned()));
    };
    if height == 0 || width == 0 {
        return Err(bad(images, format!("its pictures are of {width} x {height} pixels")));
    }
    let labels = Array::open::<1>(&labels_path)?;
    if labels.extents != [count] {
        return Err(bad(&labels_path, format!("{} labels for {count} pictures", labels.extents[0])));
    }
    let labels = match labels.data {
        Data::Memory(bytes) => bytes,
        Data::File(file, start) => file.read_up_to(start, count as usize)?,
    };
    let records = labels.iter().zip(0..).map(|(&label, index): (_, u32)| (format!("{index:08}"), i64::from(label)));
    let listing = Listing::numbered(&labels_path, records.collect())?;
    Source::new(SourceKind::Idx, images, listing, Pictures { width: width as usize, height: height as usize, data })
}

/// The labels file of an images file: the same name but for `labels` and `idx1`, gzipped or not.
fn labels_beside(images: &Path) -> Result<PathBuf, Error> {
    let name = images.file_name().unwrap_or_default().to_string_lossy();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let labels = plain.replace("images", "labels").replace("idx3", "idx1");
    let candidates = [labels.clone(), format!("{labels}.gz")].map(|name| images.with_file_name(name));
    if labels != plain
        && let Some(found) = candidates.into_iter().find(|path| path.is_file())
    {
        return Ok(found);
    }
    Err(Error::Source {
        path: images.to_owned(),
        problem: "there is no file of labels beside it".to_owned(),
        help: "name the two as MNIST does: train-images-idx3-ubyte and train-labels-idx1-ubyte, with or without .gz",
    })
}

fn bad(path: &Path, problem: String) -> Error {
    Error::Source { path: path.to_owned(), problem, help: "it should be an IDX file of unsigned bytes; fetch it again" }
}

impl Array {
    /// An array of `N` extents, each element a byte.
    fn open<const N: usize>(path: &Path) -> Result<Self, Error> {
        let file = SharedFile::open(path)?;
        let header_len = 4 + 4 * N as u64;
        let zipped = file.read_up_to(0, 2)? == [0x1F, 0x8B];
        let header =
            if zipped { unpack(path, file.reader(0), header_len)? } else { file.read_up_to(0, header_len as usize)? };
        let extents: Vec<u32> = match header.split_first_chunk::<4>() {
            Some((&[0, 0, 8, rank], rest)) if usize::from(rank) == N && rest.len() == 4 * N => {
                rest.as_chunks::<4>().0.iter().map(|&extent| u32::from_be_bytes(extent)).collect()
            }
            _ => return Err(bad(path, format!("no header of a byte array with {N} extents"))),
        };
        let size = extents.iter().try_fold(1u64, |size, &extent| size.checked_mul(u64::from(extent)));
        let size = size.filter(|size| size.checked_add(header_len).is_some());
        let Some(size) = size else { return Err(bad(path, format!("extents {extents:?} are beyond all measure"))) };
        if !zipped {
            if file.len() - header_len != size {
                return Err(bad(
                    path,
                    format!("{} bytes follow a header that promises {size}", file.len() - header_len),
                ));
            }
            return Ok(Self { extents, data: Data::File(file, header_len) });
        }
        if size > MOST_UNPACKED {
            return Err(Error::Source {
                path: path.to_owned(),
                problem: format!("it unpacks to {size} bytes, too many to hold in memory"),
                help: "unpack it with gunzip; the plain file is read where it lies",
            });
        }
        // One more than there should be, to notice what there should not be.
        let mut bytes = unpack(path, file.reader(0), header_len + size + 1)?;
        if bytes.len() as u64 != header_len + size {
            return Err(bad(path, format!("it unpacks to another length than its header promises, {size} bytes")));
        }
        bytes.drain(..header_len as usize);
        Ok(Self { extents, data: Data::Memory(bytes) })
    }
}

/// At most `limit` bytes of a gzipped file. Memory grows with what is really there.
fn unpack(path: &Path, file: impl Read, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = MultiGzDecoder::new(file).take(limit).read_to_end(&mut bytes);
    read.map_err(|source| bad(path, format!("it cannot be unpacked ({source})")))?;
    Ok(bytes)
}
