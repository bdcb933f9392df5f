//! The zip container of `torch.save`: where each entry's bytes lie in the file.
//!
//! An own parser, because entries must be mapped in place: only stored (uncompressed) entries are accepted, and every
//! offset is checked against the file before anything is sliced. Checksums are not verified: PyTorch may leave them out.

use std::collections::BTreeMap;
use std::ops::Range;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END_RECORD: u32 = 0x0605_4b50;
const ZIP64_END_RECORD: u32 = 0x0606_4b50;
const ZIP64_LOCATOR: u32 = 0x0706_4b50;
const ZIP64_EXTRA: u16 = 0x0001;

const END_RECORD_LEN: usize = 22;
const ZIP64_LOCATOR_LEN: usize = 20;
const LOCAL_HEADER_LEN: usize = 30;
const CENTRAL_HEADER_LEN: usize = 46;

const CUT_SHORT: &str =
    "the zip archive is cut short\n  help: the download or copy did not finish; fetch the file again";
const CORRUPT: &str = "the zip archive is corrupt";
const RESAVE: &str = "load it in Python and save it again with torch.save";

/// The entries of a zip archive, each with the bytes it occupies in the file.
#[derive(Debug)]
pub(crate) struct Archive {
    // Invariant: every range lies within the bytes that were parsed, and no two overlap.
    entries: BTreeMap<String, Range<usize>>,
    /// Why some entry's bytes are not its content.
    not_stored: Option<String>,
}

impl Archive {
    /// Reads the central directory of `bytes`.
    ///
    /// # Errors
    /// What is wrong, with what to do: cut short, corrupt, duplicate names.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let directory = Directory::find(bytes)?;
        let mut entries = BTreeMap::new();
        let mut not_stored = None;
        let mut rest = &bytes[directory.range.clone()];
        for _ in 0..directory.entries {
            let header = CentralHeader::parse(rest).ok_or(CORRUPT)?;
            rest = rest.get(header.len..).ok_or(CORRUPT)?;
            let name =
                std::str::from_utf8(header.name).map_err(|_| format!("{CORRUPT}: an entry's name is not UTF-8"))?;
            not_stored = not_stored.or(header.check_stored(name)?);
            let data = header
                .data(&bytes[..directory.range.start])
                .ok_or_else(|| format!("{CORRUPT}: entry {name:?} is not where the directory says"))?;
            if entries.insert(name.to_owned(), data).is_some() {
                return Err(format!("{CORRUPT}: two entries are named {name:?}"));
            }
        }
        if !rest.is_empty() {
            return Err(format!("{CORRUPT}: its directory is longer than it says"));
        }
        refuse_overlaps(&entries)?;
        Ok(Self { entries, not_stored })
    }

    /// Checks that every entry's bytes are its content.
    ///
    /// # Errors
    /// Which entry is compressed or encrypted, and what to do.
    pub(crate) fn require_stored(&self) -> Result<(), String> {
        self.not_stored.clone().map_or(Ok(()), Err)
    }

    /// Where the bytes of the entry `name` lie.
    pub(crate) fn get(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }

    /// The names of all entries, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

fn refuse_overlaps(entries: &BTreeMap<String, Range<usize>>) -> Result<(), String> {
    let mut ranges: Vec<_> = entries.values().filter(|r| !r.is_empty()).collect();
    ranges.sort_by_key(|r| r.start);
    if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(format!("{CORRUPT}: two entries share bytes"));
    }
    Ok(())
}

/// Where the central directory lies and how many entries it lists.
struct Directory {
    // Invariant: within the file.
    range: Range<usize>,
    entries: u64,
}

impl Directory {
    fn find(bytes: &[u8]) -> Result<Self, String> {
        let end = find_end_record(bytes).ok_or(CUT_SHORT)?;
        let (entries, size, offset) = match zip64_end_record(bytes, end) {
            Some(zip64) => zip64.ok_or(CORRUPT)?,
            None => (
                u64::from(u16_at(bytes, end + 10).ok_or(CUT_SHORT)?),
                u64::from(u32_at(bytes, end + 12).ok_or(CUT_SHORT)?),
                u64::from(u32_at(bytes, end + 16).ok_or(CUT_SHORT)?),
            ),
        };
        let range = range_of(offset, size).filter(|r| r.end <= end);
        let range = range.ok_or_else(|| format!("{CORRUPT}: its directory lies outside the file"))?;
        Ok(Self { range, entries })
    }
}

/// The end record is the last thing in the file but for a comment of up to 65,535 bytes.
fn find_end_record(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(END_RECORD_LEN)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    (first..=last)
        .rev()
        .find(|&at| u32_at(bytes, at) == Some(END_RECORD) && u16_at(bytes, at + 20).map(usize::from) == Some(last - at))
}

/// Number of entries, size and offset of the directory, from the zip64 end record: `None` where the archive has none,
/// `Some(None)` where it is announced but not there.
fn zip64_end_record(bytes: &[u8], end: usize) -> Option<Option<(u64, u64, u64)>> {
    let locator = end.checked_sub(ZIP64_LOCATOR_LEN)?;
    if u32_at(bytes, locator)? != ZIP64_LOCATOR {
        return None;
    }
    let record = || {
        let at = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
        if u32_at(bytes, at)? != ZIP64_END_RECORD {
            return None;
        }
        let field = |offset| u64_at(bytes, at.checked_add(offset)?);
        Some((field(32)?, field(40)?, field(48)?))
    };
    Some(record())
}

struct CentralHeader<'a> {
    flags: u16,
    method: u16,
    name: &'a [u8],
    compressed: u64,
    uncompressed: u64,
    local_header: u64,
    /// Of this header itself.
    len: usize,
}

impl<'a> CentralHeader<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u32_at(bytes, 0)? != CENTRAL_HEADER {
            return None;
        }
        let name_len = usize::from(u16_at(bytes, 28)?);
        let extra_len = usize::from(u16_at(bytes, 30)?);
        let comment_len = usize::from(u16_at(bytes, 32)?);
        let extra_at = CENTRAL_HEADER_LEN + name_len;
        let mut header = Self {
            flags: u16_at(bytes, 8)?,
            method: u16_at(bytes, 10)?,
            name: bytes.get(CENTRAL_HEADER_LEN..extra_at)?,
            compressed: u64::from(u32_at(bytes, 20)?),
            uncompressed: u64::from(u32_at(bytes, 24)?),
            local_header: u64::from(u32_at(bytes, 42)?),
            len: extra_at + extra_len + comment_len,
        };
        header.widen(bytes.get(extra_at..extra_at + extra_len)?)?;
        Some(header)
    }

    /// Takes from the zip64 extra field what 32 bits could not hold. It lists only those, in this order.
    fn widen(&mut self, mut extra: &[u8]) -> Option<()> {
        let saturated = u64::from(u32::MAX);
        while let (Some(tag), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
            let field = extra.get(4..4 + usize::from(len))?;
            if tag == ZIP64_EXTRA {
                let mut at = 0;
                for value in [&mut self.uncompressed, &mut self.compressed, &mut self.local_header] {
                    if *value == saturated {
                        *value = u64_at(field, at)?;
                        at += 8;
                    }
                }
                return Some(());
            }
            extra = extra.get(4 + usize::from(len)..)?;
        }
        Some(())
    }

    /// Why the bytes are not the entry's content, if they are not.
    fn check_stored(&self, name: &str) -> Result<Option<String>, String> {
        const ENCRYPTED: u16 = 1;
        if self.flags & ENCRYPTED != 0 {
            return Ok(Some(format!("entry {name:?} is encrypted\n  help: {RESAVE}")));
        }
        if self.method != 0 {
            return Ok(Some(format!(
                "entry {name:?} is compressed (method {}); PyTorch stores its tensors uncompressed\n  help: {RESAVE}",
                self.method
            )));
        }
        if self.compressed != self.uncompressed {
            return Err(format!("{CORRUPT}: entry {name:?} has two sizes"));
        }
        Ok(None)
    }

    /// Where the entry's bytes lie in `bytes`, the file up to its directory. The local header in front of them tells
    /// where they start; its sizes may be blank, so those of the directory count.
    fn data(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let at = usize::try_from(self.local_header).ok()?;
        let local = bytes.get(at..)?;
        if u32_at(local, 0)? != LOCAL_HEADER {
            return None;
        }
        let name_len = usize::from(u16_at(local, 26)?);
        let extra_len = usize::from(u16_at(local, 28)?);
        let name_end = LOCAL_HEADER_LEN + name_len;
        if local.get(LOCAL_HEADER_LEN..name_end)? != self.name {
            return None;
        }
        let start = at.checked_add(name_end + extra_len)?;
        let range = range_of(u64::try_from(start).ok()?, self.compressed)?;
        (range.end <= bytes.len()).then_some(range)
    }
}

fn range_of(start: u64, len: u64) -> Option<Range<usize>> {
    let end = start.checked_add(len)?;
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
