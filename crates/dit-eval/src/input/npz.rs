//! NumPy archives: zip files of arrays, mapped where they are stored, unpacked into memory or past it where they are deflated.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::{Crc, read::DeflateDecoder};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use tch::Tensor;

use super::npy::{Element, Header};
use crate::Error;

/// Enough of a member to hold its header.
const HEAD: usize = 1 << 16;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// The most that a deflated array of numbers may unpack to, in memory.
const MOST_UNPACKED: u64 = 1 << 32;

/// An archive of arrays, opened.
///
/// The file must not be shortened while it is open.
#[derive(Debug)]
pub(crate) struct Npz {
    path: PathBuf,
    map: Mmap,
    members: BTreeMap<String, Member>,
}

#[derive(Debug, Clone)]
struct Member {
    deflated: bool,
    /// Where its bytes are in the file.
    start: usize,
    len: usize,
    /// Bytes once unpacked.
    size: u64,
    /// CRC-32 of those.
    checksum: u32,
}

impl Npz {
    /// Maps the file and reads its directory.
    ///
    /// # Errors
    /// [`Error::Input`] for what is no archive, [`Error::Io`].
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let bad = |problem: &str| bad(path, problem.to_owned());
        if file.metadata().map_err(Error::io("open", path))?.len() == 0 {
            return Err(bad("it is empty"));
        }
        // SAFETY: the map is read as plain bytes only; that nobody shortens the file meanwhile is this type's condition.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let members = directory(&map).ok_or_else(|| bad("it is no zip archive, or its end is missing"))?;
        Ok(Self { path: path.to_owned(), map, members })
    }

    /// Whether there is an array of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// What there is.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    fn member(&self, name: &str) -> Result<(&Member, &[u8]), Error> {
        let names = || self.names().collect::<Vec<_>>().join(", ");
        let member = self.members.get(name);
        let member = member.ok_or_else(|| bad(&self.path, format!("it has no array {name}, but {}", names())))?;
        let bytes = self.map.get(member.start..member.start + member.len);
        Ok((member, bytes.ok_or_else(|| bad(&self.path, format!("{name} is cut short")))?))
    }

    /// What the array `name` is.
    pub(crate) fn header(&self, name: &str) -> Result<Header, Error> {
        let (member, bytes) = self.member(name)?;
        let mut head = Vec::new();
        let head = if member.deflated {
            let read = DeflateDecoder::new(bytes).take(HEAD as u64).read_to_end(&mut head);
            read.map_err(Error::io("unpack", &self.path))?;
            &head[..]
        } else {
            &bytes[..bytes.len().min(HEAD)]
        };
        let header = Header::parse(head).map_err(|problem| bad(&self.path, format!("{name}: {problem}")))?;
        let expected = header.byte_len().and_then(|bytes| bytes.checked_add(header.values));
        if expected.map(|bytes| bytes as u64) != Some(member.size) {
            return Err(bad(
                &self.path,
                format!("{name} has {} bytes, which its shape {:?} does not explain", member.size, header.shape),
            ));
        }
        Ok(header)
    }

    /// The values of `name`, from the byte `start` of them on.
    pub(crate) fn reader(&self, name: &str, start: u64) -> Result<Box<dyn Read + Send + '_>, Error> {
        let header = self.header(name)?;
        let (member, bytes) = self.member(name)?;
        let skipped = start.saturating_add(header.values as u64);
        let mapped = |skipped: usize| Mapped {
            map: &self.map,
            at: member.start + skipped,
            end: member.start + bytes.len(),
            kept: member.start,
        };
        if !member.deflated {
            // Beyond the end, there is nothing to read.
            let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(Box::new(mapped(skipped)));
        }
        let mut reader = DeflateDecoder::new(mapped(0));
        std::io::copy(&mut reader.by_ref().take(skipped), &mut std::io::sink())
            .map_err(Error::io("unpack", &self.path))?;
        Ok(Box::new(reader))
    }

    /// Hands all values of `name` to `each`, a piece at a time.
    ///
    /// # Errors
    /// [`Error::Input`] where they are not those that the archive's checksum was computed of.
    pub(crate) fn read_through(&self, name: &str, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let mut header = self.header(name)?.values;
        let (member, bytes) = self.member(name)?;
        let mapped = Mapped { map: &self.map, at: member.start, end: member.start + bytes.len(), kept: member.start };
        let mut reader: Box<dyn Read> =
            if member.deflated { Box::new(DeflateDecoder::new(mapped)) } else { Box::new(mapped) };
        let damaged = || Error::Input {
            path: self.path.clone(),
            problem: format!("{name} does not have the checksum that it should have"),
            help: "the file is damaged: copy, download or make it again",
        };
        let mut checksum = Crc::new();
        let mut piece = vec![0; PIECE];
        let mut total = 0;
        loop {
            let count = reader.read(&mut piece).map_err(Error::io("unpack", &self.path))?;
            let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else { break };
            checksum.update(read);
            total += count as u64;
            if total > member.size {
                // There may be no end to it.
                return Err(damaged());
            }
            let skipped = header.min(count);
            header -= skipped;
            each(&read[skipped..]);
        }
        if (total, checksum.sum()) != (member.size, member.checksum) {
            return Err(damaged());
        }
        Ok(())
    }

    /// An array of bytes of at most `most`; none if it is of another kind, or larger.
    pub(crate) fn bytes(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, Error> {
        let header = self.header(name)?;
        if header.element != Element::U8 || header.byte_len().is_none_or(|len| len > most) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.read_through(name, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(Some(bytes))
    }

    /// An array of numbers, as f64.
    ///
    /// # Errors
    /// [`Error::Input`] where there is none, its checksum is another, or it is too large for an array of statistics.
    pub(crate) fn numbers(&self, name: &str) -> Result<Tensor, Error> {
        let header = self.header(name)?;
        let len = header.byte_len().unwrap_or(usize::MAX);
        if len as u64 > MOST_UNPACKED {
            return Err(bad(&self.path, format!("{name} of shape {:?} is too large for statistics", header.shape)));
        }
        let mut bytes = Vec::with_capacity(len);
        self.read_through(name, &mut |piece| bytes.extend_from_slice(piece))?;
        let values: Vec<f64> = match header.element {
            Element::U8 => bytes.iter().map(|&byte| f64::from(byte)).collect(),
            Element::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            Element::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Element::I32 => bytes.as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect(),
            Element::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
        };
        let shape: Vec<i64> = header.shape.iter().map(|&extent| extent as i64).collect();
        Ok(Tensor::from_slice(&values).f_view(shape.as_slice())?)
    }
}

/// Reads a part of a mapped file from its beginning to its end, and gives back the memory behind it: pages that were read would
/// otherwise count as the process's until they are needed elsewhere.
struct Mapped<'a> {
    map: &'a Mmap,
    at: usize,
    end: usize,
    /// Where memory begins that was not given back.
    kept: usize,
}

/// Bytes that are given back at once.
const GIVEN_BACK: usize = 1 << 24;

impl Read for Mapped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.map.get(self.at..self.end).unwrap_or_default();
        let count = left.len().min(buffer.len());
        let (Some(from), Some(to)) = (left.get(..count), buffer.get_mut(..count)) else { return Ok(0) };
        to.copy_from_slice(from);
        self.at += count;
        if self.at - self.kept >= GIVEN_BACK {
            give_back(self.map, self.kept, self.at - self.kept);
            self.kept = self.at;
        }
        Ok(count)
    }
}

#[cfg(unix)]
fn give_back(map: &Mmap, offset: usize, len: usize) {
    // SAFETY: the map is of a file and is never written to, so that what is given back is read from the file again.
    let given = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
    if let Err(error) = given {
        tracing::debug!(%error, "the system keeps what was read");
    }
}

#[cfg(not(unix))]
fn give_back(_map: &Mmap, _offset: usize, _len: usize) {}

pub(super) fn bad(path: &Path, problem: String) -> Error {
    let help = "give an npz with arr_0, uint8 (N, H, W, 3), or with mu and sigma";
    Error::Input { path: path.to_owned(), problem, help }
}

/// The members by name without `.npy`, from the directory at the end of a zip file; zip64 included. None if it is none.
fn directory(zip: &[u8]) -> Option<BTreeMap<String, Member>> {
    // The end record is at the very end, but for a comment of up to 64 KiB.
    let least = zip.len().saturating_sub(22 + 0xffff);
    let end = (least..zip.len().checked_sub(21)?).rev().find(|&at| zip[at..].starts_with(b"PK\x05\x06"))?;
    let (mut count, mut at) = (u64::from(u16_at(zip, end + 10)?), u64::from(u32_at(zip, end + 16)?));
    let locator = end.checked_sub(20);
    if let Some(locator) = locator.filter(|&locator| zip[locator..].starts_with(b"PK\x06\x07")) {
        let record = usize::try_from(u64_at(zip, locator + 8)?).ok()?;
        zip.get(record..)?.starts_with(b"PK\x06\x06").then_some(())?;
        (count, at) = (u64_at(zip, record.checked_add(32)?)?, u64_at(zip, record.checked_add(48)?)?);
    }
    let mut at = usize::try_from(at).ok()?;
    let mut members = BTreeMap::new();
    for _ in 0..count {
        zip.get(at..)?.starts_with(b"PK\x01\x02").then_some(())?;
        let field16 = |offset: usize| u16_at(zip, at + offset).map(usize::from);
        let (method, name_len, extra_len, comment_len) = (field16(10)?, field16(28)?, field16(30)?, field16(32)?);
        let name = String::from_utf8_lossy(zip.get(at + 46..at + 46 + name_len)?).into_owned();
        let extra = zip.get(at + 46 + name_len..at + 46 + name_len + extra_len)?;
        let mut wide = wide_fields(extra);
        let mut field = |offset: usize| match u32_at(zip, at + offset)? {
            u32::MAX => wide.next(),
            value => Some(u64::from(value)),
        };
        // In this order in the extra field: size, compressed size, offset.
        let (size, len, local) = (field(24)?, field(20)?, field(42)?);
        let (len, local) = (usize::try_from(len).ok()?, usize::try_from(local).ok()?);
        zip.get(local..)?.starts_with(b"PK\x03\x04").then_some(())?;
        let start = local + 30 + usize::from(u16_at(zip, local + 26)?) + usize::from(u16_at(zip, local + 28)?);
        let (encrypted, checksum) = (field16(8)? & 1 == 1, u32_at(zip, at + 16)?);
        if !encrypted && matches!(method, 0 | 8) && start.checked_add(len)? <= zip.len() {
            let name = name.strip_suffix(".npy").map_or(name.clone(), str::to_owned);
            members.insert(name, Member { deflated: method == 8, start, len, size, checksum });
        }
        at = at.checked_add(46 + name_len + extra_len + comment_len)?;
    }
    Some(members)
}

/// The 64-bit numbers of the zip64 field.
fn wide_fields(mut extra: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let mut found: &[u8] = &[];
    while let [a, b, c, d, rest @ ..] = extra {
        let len = usize::from(u16::from_le_bytes([*c, *d])).min(rest.len());
        if u16::from_le_bytes([*a, *b]) == 1 {
            found = &rest[..len];
        }
        extra = &rest[len..];
    }
    found.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes))
}

fn bytes_at<const N: usize>(zip: &[u8], at: usize) -> Option<[u8; N]> {
    zip.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(zip: &[u8], at: usize) -> Option<u16> {
    bytes_at(zip, at).map(u16::from_le_bytes)
}

fn u32_at(zip: &[u8], at: usize) -> Option<u32> {
    bytes_at(zip, at).map(u32::from_le_bytes)
}

fn u64_at(zip: &[u8], at: usize) -> Option<u64> {
    bytes_at(zip, at).map(u64::from_le_bytes)
}
