//! Writes zip archives as PyTorch lays them out: stored entries, their bytes aligned for mapping, zip64 where needed.

use std::io::{self, Write};

/// PyTorch aligns every entry to this, so that a mapped tensor is aligned for any instruction set.
const ALIGNMENT: u64 = 64;
/// PyTorch's own id for the extra field that does the padding.
const PADDING_EXTRA: u16 = 0x4246;
const ZIP64_EXTRA: u16 = 0x0001;
/// 1 January 1980: the format's zero, so that equal tensors make equal files.
const DATE: u16 = 0x0021;
const UTF8_NAMES: u16 = 1 << 11;
const VERSION_ZIP64: u16 = 45;

/// Writes an archive front to back; nothing is buffered but the directory.
pub(super) struct ZipWriter<W> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    entries: u64,
    /// Values of this and above are written as zip64: 2³² − 1, less in tests.
    zip64_from: u64,
}

impl<W: Write> ZipWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, at: 0, directory: Vec::new(), entries: 0, zip64_from: u32::MAX.into() }
    }

    /// Writes one entry.
    pub(super) fn entry(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let name_len = u16::try_from(name.len()).map_err(io::Error::other)?;
        let offset = self.at;
        let size = data.len() as u64;
        let crc = crc32fast::hash(data);

        // The local header: in zip64 it gives both sizes or none.
        let mut extra = Vec::new();
        let size32 = match self.narrow(size) {
            Some(size) => size,
            None => {
                extra.extend(ZIP64_EXTRA.to_le_bytes());
                extra.extend(16u16.to_le_bytes());
                extra.extend(size.to_le_bytes());
                extra.extend(size.to_le_bytes());
                u32::MAX
            }
        };
        let unpadded = offset + 30 + u64::from(name_len) + extra.len() as u64 + 4;
        let padding = (unpadded.next_multiple_of(ALIGNMENT) - unpadded) as u16;
        extra.extend(PADDING_EXTRA.to_le_bytes());
        extra.extend(padding.to_le_bytes());
        extra.resize(extra.len() + usize::from(padding), 0);

        let mut shared = Vec::new();
        shared.extend(VERSION_ZIP64.to_le_bytes());
        shared.extend(UTF8_NAMES.to_le_bytes());
        shared.extend(0u16.to_le_bytes()); // stored
        shared.extend(0u16.to_le_bytes()); // time
        shared.extend(DATE.to_le_bytes());
        shared.extend(crc.to_le_bytes());
        shared.extend(size32.to_le_bytes());
        shared.extend(size32.to_le_bytes());
        shared.extend(name_len.to_le_bytes());

        self.write(b"PK\x03\x04")?;
        self.write(&shared)?;
        self.write(&(extra.len() as u16).to_le_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&extra)?;
        self.write(data)?;

        // The directory's header: in zip64 it gives only what does not fit.
        let mut wide = Vec::new();
        if size32 == u32::MAX {
            wide.extend(size.to_le_bytes());
            wide.extend(size.to_le_bytes());
        }
        let offset32 = self.narrow(offset).unwrap_or_else(|| {
            wide.extend(offset.to_le_bytes());
            u32::MAX
        });
        let wide_header = if wide.is_empty() { 0 } else { 4 };
        let directory = &mut self.directory;
        directory.extend(b"PK\x01\x02");
        directory.extend(VERSION_ZIP64.to_le_bytes());
        directory.extend(shared);
        directory.extend((wide.len() as u16 + wide_header).to_le_bytes());
        directory.extend([0; 2 + 2 + 2 + 4]); // comment, disk, attributes inside and out
        directory.extend(offset32.to_le_bytes());
        directory.extend(name.as_bytes());
        if !wide.is_empty() {
            directory.extend(ZIP64_EXTRA.to_le_bytes());
            directory.extend((wide.len() as u16).to_le_bytes());
            directory.extend(wide);
        }
        self.entries += 1;
        Ok(())
    }

    /// Writes the directory and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let offset = self.at;
        let directory = std::mem::take(&mut self.directory);
        let size = directory.len() as u64;
        self.write(&directory)?;

        let entries16 = u16::try_from(self.entries).ok().filter(|&n| n < u16::MAX && u64::from(n) < self.zip64_from);
        let (size32, offset32) = (self.narrow(size), self.narrow(offset));
        if entries16.is_none() || size32.is_none() || offset32.is_none() {
            let end = self.at;
            self.write(b"PK\x06\x06")?;
            self.write(&44u64.to_le_bytes())?;
            self.write(&VERSION_ZIP64.to_le_bytes())?;
            self.write(&VERSION_ZIP64.to_le_bytes())?;
            self.write(&[0; 8])?; // disks
            for value in [self.entries, self.entries, size, offset] {
                self.write(&value.to_le_bytes())?;
            }
            self.write(b"PK\x06\x07")?;
            self.write(&[0; 4])?;
            self.write(&end.to_le_bytes())?;
            self.write(&1u32.to_le_bytes())?;
        }
        let entries16 = entries16.unwrap_or(u16::MAX).to_le_bytes();
        self.write(b"PK\x05\x06")?;
        self.write(&[0; 4])?;
        self.write(&entries16)?;
        self.write(&entries16)?;
        self.write(&size32.unwrap_or(u32::MAX).to_le_bytes())?;
        self.write(&offset32.unwrap_or(u32::MAX).to_le_bytes())?;
        self.write(&[0; 2])?; // comment
        Ok(self.out)
    }

    /// The value in 32 bits; `None` where it must go into a zip64 field.
    fn narrow(&self, value: u64) -> Option<u32> {
        u32::try_from(value).ok().filter(|_| value < self.zip64_from)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch_pickle::Archive;

    #[track_caller]
    fn check(entries: &[(&str, &[u8])], zip64_from: u64) {
        let mut zip = ZipWriter::new(Vec::new());
        zip.zip64_from = zip64_from;
        for (name, data) in entries {
            zip.entry(name, data).unwrap();
        }
        let bytes = zip.finish().unwrap();
        let archive = Archive::parse(&bytes).unwrap();
        assert_eq!(archive.names().count(), entries.len());
        for (name, data) in entries {
            let range = archive.get(name).unwrap();
            assert_eq!(range.start % 64, 0, "{name} is not aligned");
            assert_eq!(&bytes[range], *data, "{name}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let large = vec![7; 1000];
        let entries: &[(&str, &[u8])] = &[("a/data/0", b"123"), ("a/empty", b""), ("a/ü", &large)];
        // All in 32 bits; the last offset, size and directory in 64; everything in 64.
        for zip64_from in [u64::from(u32::MAX), 200, 0] {
            check(entries, zip64_from);
            check(&[], zip64_from);
        }
    }

    #[test]
    fn more_entries_than_sixteen_bits_count() {
        let names: Vec<String> = (0..70_000).map(|i| i.to_string()).collect();
        let entries: Vec<(&str, &[u8])> = names.iter().map(|n| (&**n, &b""[..])).collect();
        check(&entries, u32::MAX.into());
        check(&entries[..usize::from(u16::MAX)], u32::MAX.into());
    }

    #[track_caller]
    fn check_refused(zip: ZipWriter<Vec<u8>>, expected: &str) {
        let problem = Archive::parse(&zip.finish().unwrap()).unwrap_err();
        assert!(problem.contains(expected), "{expected:?} is not in: {problem}");
    }

    #[test]
    fn archives_that_readers_could_take_for_two_are_refused() {
        let mut twice = ZipWriter::new(Vec::new());
        twice.entry("a/data.pkl", b"1").unwrap();
        twice.entry("a/data.pkl", b"2").unwrap();
        check_refused(twice, "two entries are named");

        // An entry within another's bytes.
        let mut inner = ZipWriter::new(Vec::new());
        inner.entry("b", b"inner").unwrap();
        let mut outer = ZipWriter::new(Vec::new());
        outer.entry("a", &inner.out).unwrap();
        let offset = outer.at - inner.at;
        let header = inner.directory.len() - "b".len() - 4;
        inner.directory[header..][..4].copy_from_slice(&(offset as u32).to_le_bytes());
        outer.directory.extend(&inner.directory);
        outer.entries += 1;
        check_refused(outer, "share bytes");

        let mut more = ZipWriter::new(Vec::new());
        more.entry("a", b"").unwrap();
        more.entries += 1;
        check_refused(more, "corrupt");
    }
}
