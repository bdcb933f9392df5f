use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dit_files::AtomicFile;

use crate::error::{Error, Result};
use crate::picture::Picture;

/// The archive's only member: NumPy's name for an array saved without one.
const MEMBER: &[u8] = b"arr_0.npy";
/// The length of the array's header: fixed, so that the number of pictures in it can be corrected at the end.
const NPY_HEADER: usize = 128;
/// 1 January 1980, the zip format's first day: the bytes must not depend on the clock.
const DATE: u16 = 1 << 5 | 1;
/// An ordinary file, readable by all, made on Unix.
const MODE: u32 = 0o100_644 << 16;
const UNIX: u16 = 3 << 8;
/// A 32-bit size or offset that is found in the zip64 record instead.
const ELSEWHERE: u32 = u32::MAX;

/// Streams pictures into a NumPy archive: `arr_0`, uint8, (N, height, width, 3), the form that FID evaluators read.
///
/// Memory does not grow with N, and the archive may exceed 4 GiB (zip64). It appears at its path only when
/// [`finish`](Self::finish) or [`finish_early`](Self::finish_early) returns; dropping the writer leaves nothing.
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
    form: Form,
}

/// Which of zip's two ways of writing sizes; chosen from the announced size, since it decides where the data begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Zip,
    Zip64,
}

impl NpzWriter {
    /// Begins an archive of `count` pictures of one size.
    ///
    /// # Errors
    /// [`Error::Size`] or [`Error::ArchiveTooLarge`] for impossible sizes; the file errors of
    /// [`ensure_writable`](dit_files::ensure_writable).
    pub fn create(path: &Path, count: u64, width: u32, height: u32) -> Result<Self> {
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
        // The directory behind the data must be reachable by 32 bits too.
        let form = if size < u64::from(u32::MAX) - 1024 { Form::Zip } else { Form::Zip64 };
        let mut writer = Self {
            output: BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?),
            path: path.to_path_buf(),
            width,
            height,
            announced: count,
            written: 0,
            each,
            pixels: crc32fast::Hasher::new(),
            form,
        };
        // Room for the headers; `finish` fills it in.
        let room = local_header(form, 0, 0).len() + NPY_HEADER;
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
        self.seal()
    }

    /// Completes the archive with what was pushed so far, for a run that was interrupted, and returns the number of
    /// pictures in it; with none at all no file is made.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish_early(self) -> Result<u64> {
        let written = self.written;
        if written > 0 {
            self.seal()?;
        }
        Ok(written)
    }

    fn seal(self) -> Result<()> {
        let header = npy_header(self.written, self.width, self.height);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header);
        checksum.combine(&self.pixels);
        let checksum = checksum.finalize();
        let size = NPY_HEADER as u64 + self.written * self.each;
        let local = local_header(self.form, checksum, size);
        let start = local.len() as u64 + size;
        let directory = directory(self.form, checksum, size, start);
        let Self { mut output, path, .. } = self;
        (|| {
            // A push that failed may have left part of a picture behind the last whole one.
            output.seek(SeekFrom::Start(start))?;
            output.write_all(&directory)?;
            output.seek(SeekFrom::Start(0))?;
            output.write_all(&local)?;
            output.write_all(&header)?;
            let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.set_len(start + directory.len() as u64)?;
            file.commit()
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

/// The header of a NumPy array file, version 1.0, padded with spaces to [`NPY_HEADER`] bytes.
fn npy_header(count: u64, width: u32, height: u32) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    let rest = NPY_HEADER - header.len() - 2;
    header.extend((rest as u16).to_le_bytes());
    let description = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, {height}, {width}, 3), }}");
    header.extend(description.bytes());
    header.resize(NPY_HEADER - 1, b' ');
    header.push(b'\n');
    header
}

/// A zip record under construction: little-endian fields, one after the other.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }

    /// The fields that a member's header and its directory entry share, and `between` them.
    fn member(self, form: Form, checksum: u32, size: u64, between: &Record) -> Self {
        let extra = form.extra(size);
        self.u16(form.version())
            .u16(0) // no flags
            .u16(0) // stored
            .u16(0) // midnight
            .u16(DATE)
            .u32(checksum)
            .u32(form.low(size)) // compressed
            .u32(form.low(size)) // uncompressed
            .u16(MEMBER.len() as u16)
            .u16(extra.len() as u16)
            .bytes(&between.0)
            .bytes(MEMBER)
            .bytes(&extra)
    }
}

impl Form {
    /// The version of the zip specification needed to read it.
    fn version(self) -> u16 {
        match self {
            Self::Zip => 20,
            Self::Zip64 => 45,
        }
    }

    /// A size or offset as the 32-bit field has it.
    fn low(self, value: u64) -> u32 {
        match self {
            Self::Zip => u32::try_from(value).unwrap_or(ELSEWHERE),
            Self::Zip64 => ELSEWHERE,
        }
    }

    /// The extra field with both sizes in 64 bits.
    fn extra(self, size: u64) -> Vec<u8> {
        match self {
            Self::Zip => Vec::new(),
            Self::Zip64 => Record::default().u16(1).u16(16).u64(size).u64(size).0,
        }
    }
}

/// What stands before the member's bytes.
fn local_header(form: Form, checksum: u32, size: u64) -> Vec<u8> {
    Record::default().bytes(b"PK\x03\x04").member(form, checksum, size, &Record::default()).0
}

/// What stands behind the member's bytes, at `start`: the directory of one entry, and where the directory is.
fn directory(form: Form, checksum: u32, size: u64, start: u64) -> Vec<u8> {
    let attributes = Record::default()
        .u16(0) // no comment
        .u16(0) // disk
        .u16(0) // internal
        .u32(MODE)
        .u32(0); // where the member's header is
    let entry =
        Record::default().bytes(b"PK\x01\x02").u16(UNIX | form.version()).member(form, checksum, size, &attributes).0;
    let length = entry.len() as u64;
    let mut record = Record::default().bytes(&entry);
    if form == Form::Zip64 {
        record = record
            .bytes(b"PK\x06\x06")
            .u64(44) // the rest of this record
            .u16(UNIX | form.version())
            .u16(form.version())
            .u32(0) // this disk
            .u32(0) // the directory's disk
            .u64(1) // entries here
            .u64(1) // entries
            .u64(length)
            .u64(start)
            .bytes(b"PK\x06\x07")
            .u32(0) // the disk of the record above
            .u64(start + length)
            .u32(1); // disks
    }
    record
        .bytes(b"PK\x05\x06")
        .u16(0) // this disk
        .u16(0) // the directory's disk
        .u16(1) // entries here
        .u16(1) // entries
        .u32(length as u32) // one short entry
        .u32(form.low(start))
        .u16(0) // no comment
        .0
}
