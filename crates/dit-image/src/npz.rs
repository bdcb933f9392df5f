mod records;

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dit_files::AtomicFile;

use self::records::{Form, Member, NPY_HEADER, npy_header};
use crate::error::{Error, Result};
use crate::picture::Picture;

/// NumPy's names for arrays saved without one.
const PICTURES: &str = "arr_0.npy";
const LABELS: &str = "arr_1.npy";
/// More than all records of the archive together, so that offsets of 32 bits reach everything where sizes do.
const RECORDS: u64 = 1024;

/// Streams pictures into a NumPy archive: `arr_0`, uint8, (N, height, width, 3), the form that FID evaluators read, and where their
/// classes are known `arr_1`, int64, (N,).
///
/// Memory does not grow with N but by the labels, and the archive may exceed 4 GiB (zip64). It appears at its path, whole, only
/// when [`finish`](Self::finish) returns; [`finish_early`](Self::finish_early) keeps a part beside it; dropping the writer leaves
/// nothing.
///
/// ```
/// # use dit_image::{NpzWriter, Picture};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("samples.npz");
/// let mut npz = NpzWriter::create(&path, 2, 16, 16)?;
/// for level in [0, 255] {
///     npz.push(&Picture::from_rgb(vec![level; 16 * 16 * 3], 16, 16)?)?;
/// }
/// npz.finish()?; // numpy.load(path)["arr_0"].shape == (2, 16, 16, 3)
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NpzWriter {
    output: BufWriter<AtomicFile>,
    path: PathBuf,
    width: u32,
    height: u32,
    announced: u64,
    written: u64,
    /// Bytes of one picture; `announced` times this, and the headers, fit an `i64`.
    each: u64,
    pixels: crc32fast::Hasher,
    labels: Option<Vec<u32>>,
    form: Form,
}

impl NpzWriter {
    /// Begins an archive of `count` pictures of one size.
    ///
    /// # Errors
    /// [`Error::Size`] or [`Error::ArchiveTooLarge`] for impossible sizes; the file errors of
    /// [`ensure_writable`](dit_files::ensure_writable).
    pub fn create(path: impl AsRef<Path>, count: u64, width: u32, height: u32) -> Result<Self> {
        Self::begin(path.as_ref(), count, None, width, height)
    }

    /// Begins an archive of pictures of these classes, in this order.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_labelled(path: impl AsRef<Path>, labels: Vec<u32>, width: u32, height: u32) -> Result<Self> {
        Self::begin(path.as_ref(), labels.len() as u64, Some(labels), width, height)
    }

    fn begin(path: &Path, count: u64, labels: Option<Vec<u32>>, width: u32, height: u32) -> Result<Self> {
        if width == 0 || height == 0 {
            return Err(Error::Size { width: width.into(), height: height.into() });
        }
        let too_large = || Error::ArchiveTooLarge { count, width, height };
        let each = picture_size(width, height).ok_or_else(too_large)?;
        let size = each
            .checked_mul(count)
            .and_then(|size| size.checked_add(NPY_HEADER as u64))
            // Leaves room for the archive's own records in every sum to come.
            .filter(|&size| size <= i64::MAX as u64)
            .ok_or_else(too_large)?;
        let behind = labels.as_ref().map_or(0, |labels| labels_size(labels.len())) + RECORDS;
        let form = if size.saturating_add(behind) < u64::from(u32::MAX) { Form::Zip } else { Form::Zip64 };
        let mut writer = Self {
            output: BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?),
            path: path.to_path_buf(),
            width,
            height,
            announced: count,
            written: 0,
            each,
            pixels: crc32fast::Hasher::new(),
            labels,
            form,
        };
        // Room for the headers; `finish` fills it in.
        let room = Member { name: PICTURES, checksum: 0, size: 0, offset: 0 }.local_header(form).len() + NPY_HEADER;
        writer.write(&vec![0; room])?;
        Ok(writer)
    }

    /// Appends one picture.
    ///
    /// # Errors
    /// [`Error::MixedSizes`], [`Error::TooManyPictures`], [`Error::Write`].
    pub fn push(&mut self, picture: &Picture) -> Result<()> {
        let expected = (self.width, self.height);
        if picture.size() != expected {
            return Err(Error::MixedSizes { index: self.written, found: picture.size(), expected });
        }
        if self.written == self.announced {
            return Err(Error::TooManyPictures { path: self.path.clone(), announced: self.announced });
        }
        self.write(picture.rgb())?;
        self.pixels.update(picture.rgb());
        self.written += 1;
        Ok(())
    }

    /// How many pictures have been pushed.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Completes the archive and puts it in its place.
    ///
    /// # Errors
    /// [`Error::TooFewPictures`] unless exactly the announced number was pushed: a short archive would give a wrong FID
    /// without a word. [`Error::Write`]. Nothing is left at the path then.
    pub fn finish(self) -> Result<()> {
        if self.written < self.announced {
            return Err(Error::TooFewPictures { path: self.path, announced: self.announced, written: self.written });
        }
        self.seal(AtomicFile::commit)
    }

    /// Completes the archive with what was pushed so far, for a run that was interrupted: at its path if that is all, else beside it
    /// ([`AtomicFile::commit_partial`]), so that nobody takes it for the whole. Returns where; with no picture at all no file is
    /// made.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish_early(self) -> Result<Option<PathBuf>> {
        match self.written {
            0 => Ok(None),
            written if written == self.announced => {
                let path = self.path.clone();
                self.finish().map(|()| Some(path))
            }
            _ => self.seal(AtomicFile::commit_partial).map(Some),
        }
    }

    fn seal<T>(self, commit: impl FnOnce(AtomicFile) -> io::Result<T>) -> Result<T> {
        let Self { mut output, path, width, height, written, each, pixels, labels, form, .. } = self;
        let header = npy_header("|u1", &format!("{written}, {height}, {width}, 3"));
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header);
        checksum.combine(&pixels);
        let size = NPY_HEADER as u64 + written * each;
        let pictures = Member { name: PICTURES, checksum: checksum.finalize(), size, offset: 0 };
        let local = pictures.local_header(form);
        let mut end = local.len() as u64 + size;
        let mut members = vec![pictures];
        (|| {
            // A push that failed may have left part of a picture behind the last whole one.
            output.seek(SeekFrom::Start(end))?;
            if let Some(labels) = &labels {
                let array = labels_array(labels.get(..written as usize).unwrap_or(labels));
                let member =
                    Member { name: LABELS, checksum: crc32fast::hash(&array), size: array.len() as u64, offset: end };
                let head = member.local_header(form);
                output.write_all(&head)?;
                output.write_all(&array)?;
                end += (head.len() + array.len()) as u64;
                members.push(member);
            }
            let directory = records::directory(form, &members, end);
            output.write_all(&directory)?;
            output.seek(SeekFrom::Start(0))?;
            output.write_all(&local)?;
            output.write_all(&header)?;
            let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.set_len(end + directory.len() as u64)?;
            commit(file)
        })()
        .map_err(|source| Error::writing(&path, source))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(|source| Error::writing(&self.path, source))
    }
}

/// Bytes of one picture.
fn picture_size(width: u32, height: u32) -> Option<u64> {
    u64::from(width).checked_mul(height.into())?.checked_mul(3)
}

/// Bytes of the array of `count` labels, as a file.
fn labels_size(count: usize) -> u64 {
    NPY_HEADER as u64 + 8 * count as u64
}

/// int64 (N,), as a NumPy file.
fn labels_array(labels: &[u32]) -> Vec<u8> {
    let mut array = npy_header("<i8", &format!("{},", labels.len()));
    array.reserve_exact(8 * labels.len());
    labels.iter().for_each(|&label| array.extend(i64::from(label).to_le_bytes()));
    array
}
