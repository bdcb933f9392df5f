//! Members of tar archives (POSIX ustar and pax, GNU), by their place in the file. Nothing is unpacked, so a member's path can do no
//! harm; links, devices and sparse files are passed over.

use super::file::SharedFile;
use crate::Error;

const BLOCK: u64 = 512;

/// The longest name or list of attributes that is believed.
const MOST_EXTENDED: u64 = 1 << 20;

/// A regular file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its path as written.
    pub(super) name: Vec<u8>,
    /// Where its data begin in the file.
    pub(super) offset: u64,
    /// Bytes of data.
    pub(super) size: u64,
}

/// What headers of their own say about the member that comes next.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

/// Walks over the members of the archive at `start..end` of a file.
pub(super) struct Members<'a> {
    file: &'a SharedFile,
    position: u64,
    end: u64,
    passed_over: Vec<Vec<u8>>,
}

impl<'a> Members<'a> {
    pub(super) fn new(file: &'a SharedFile) -> Self {
        Self { file, position: 0, end: file.len(), passed_over: Vec::new() }
    }

    /// Of an archive that is itself a member.
    pub(super) fn within(file: &'a SharedFile, archive: &Member) -> Self {
        let end = archive.offset + archive.size;
        Self { file, position: archive.offset, end, passed_over: Vec::new() }
    }

    /// The names of links, devices and sparse files among the members so far.
    pub(super) fn passed_over(&self) -> &[Vec<u8>] {
        &self.passed_over
    }

    /// The next regular file, or nothing at the end.
    ///
    /// # Errors
    /// [`Error::Archive`] for what is no header, or data that lie beyond the end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Error> {
        let mut extended = Extended::default();
        while self.position < self.end {
            let at = self.position;
            let header = self.block(at)?;
            if header.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            if !has_checksum(&header) {
                return Err(self.damaged(at, "not a tar header"));
            }
            let kind = header[156];
            let stored = number(&header[124..136]).ok_or_else(|| self.damaged(at, "size of a member"))?;
            self.position = at + BLOCK;
            if kind == b'S' {
                self.skip_sparse_map(&header)?;
            }
            // Links, devices and folders have no data, whatever their size says.
            let size = match kind {
                b'1'..=b'6' => 0,
                b'L' | b'K' | b'x' | b'g' => stored,
                _ => extended.size.unwrap_or(stored),
            };
            let offset = self.position;
            // Filling included: where it is missing, so may be what came after.
            let room = self.end - offset.min(self.end);
            if size > room || size.next_multiple_of(BLOCK) > room {
                return Err(self.damaged(at, "the archive ends within a member"));
            }
            self.position = offset + size.next_multiple_of(BLOCK);
            match kind {
                b'L' => extended.name = Some(until_zero(&self.extended(offset, size)?).to_vec()),
                b'x' => self.attributes(offset, size, &mut extended)?,
                b'K' | b'g' => {}
                _ => {
                    let Extended { name, sparse, .. } = std::mem::take(&mut extended);
                    let name = name.unwrap_or_else(|| path(&header));
                    let regular = matches!(kind, 0 | b'0' | b'7') && !sparse && !name.ends_with(b"/");
                    if regular {
                        return Ok(Some(Member { name, offset, size }));
                    }
                    tracing::debug!(name = %String::from_utf8_lossy(&name), kind, "not a plain file: passed over");
                    if kind != b'5' && !name.ends_with(b"/") {
                        self.passed_over.push(name);
                    }
                }
            }
        }
        tracing::warn!(path = %self.file.path().display(), "no mark at the archive's end: it may be incomplete");
        Ok(None)
    }

    fn block(&self, at: u64) -> Result<[u8; BLOCK as usize], Error> {
        let mut block = [0; BLOCK as usize];
        if self.end - at.min(self.end) < BLOCK {
            return Err(self.damaged(at, "the archive ends within a header"));
        }
        self.file.read_exact_at(&mut block, at)?;
        Ok(block)
    }

    /// Old GNU sparse files have more of their map in blocks before the data.
    fn skip_sparse_map(&mut self, header: &[u8; BLOCK as usize]) -> Result<(), Error> {
        let mut more = header[482] != 0;
        while more {
            more = self.block(self.position)?[504] != 0;
            self.position += BLOCK;
        }
        Ok(())
    }

    fn extended(&self, offset: u64, size: u64) -> Result<Vec<u8>, Error> {
        if size > MOST_EXTENDED {
            return Err(self.damaged(offset, "name or attributes beyond all measure"));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Attributes of pax: `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn attributes(&self, offset: u64, size: u64, extended: &mut Extended) -> Result<(), Error> {
        let bytes = self.extended(offset, size)?;
        let bad = || self.damaged(offset, "pax attributes");
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && rest[0] != 0 {
            let space = rest.iter().position(|&byte| byte == b' ').ok_or_else(bad)?;
            let length = decimal(&rest[..space]).ok_or_else(bad)?;
            let attribute = rest.get(space + 1..length as usize).ok_or_else(bad)?;
            rest = &rest[length as usize..];
            let attribute = attribute.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = attribute.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
            let (key, value) = (&attribute[..equals], &attribute[equals + 1..]);
            match key {
                b"path" => extended.name = Some(value.to_vec()),
                b"size" => extended.size = Some(decimal(value).ok_or_else(bad)?),
                _ if key.starts_with(b"GNU.sparse.") => extended.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn damaged(&self, offset: u64, problem: &str) -> Error {
        Error::Archive { path: self.file.path().to_owned(), offset, problem: problem.to_owned() }
    }
}

/// Whether the first block of `bytes` is a tar header.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    bytes.first_chunk::<{ BLOCK as usize }>().is_some_and(has_checksum)
}

/// The sum of all bytes, its own field counted as blanks; some old programs summed signed bytes.
fn has_checksum(header: &[u8; BLOCK as usize]) -> bool {
    let Some(stored) = number(&header[148..156]) else { return false };
    let bytes = || header[..148].iter().chain(&[b' '; 8]).chain(&header[156..]).copied();
    let unsigned: u64 = bytes().map(u64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    stored == unsigned || i64::try_from(stored) == Ok(signed)
}

/// A number in octal, or in base 256 where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xFF, rest @ ..] = field {
        // The second bit is the sign.
        let start = (*first == 0x80).then_some(0u64)?;
        return rest.iter().try_fold(start, |value, &byte| value.checked_mul(256)?.checked_add(u64::from(byte)));
    }
    let text = field.iter().copied().skip_while(|&byte| byte == b' ').take_while(|&byte| byte != b' ' && byte != 0);
    text.into_iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The path in a header; POSIX, unlike GNU, keeps its beginning in a second field.
fn path(header: &[u8; BLOCK as usize]) -> Vec<u8> {
    let name = until_zero(&header[..100]);
    let prefix = if &header[257..263] == b"ustar\0" { until_zero(&header[345..500]) } else { &[] };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}
