//! The records of a zip archive of stored NumPy arrays. APPNOTE.TXT 6.3, <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>.

/// The length of an array's header: fixed, so that the number of pictures in it can be corrected at the end.
pub(super) const NPY_HEADER: usize = 128;
/// 1 January 1980, the zip format's first day: the bytes must not depend on the clock.
const DATE: u16 = 1 << 5 | 1;
/// An ordinary file, readable by all, made on Unix.
const MODE: u32 = 0o100_644 << 16;
const UNIX: u16 = 3 << 8;
/// A 32-bit size or offset that is found in the zip64 field instead.
const ELSEWHERE: u32 = u32::MAX;

/// Which of zip's two ways of writing sizes; chosen from the announced size, since it decides where the data begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Zip,
    Zip64,
}

/// A file of the archive.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) checksum: u32,
    pub(super) size: u64,
    /// Where its header begins.
    pub(super) offset: u64,
}

/// The header of a NumPy array file, version 1.0, padded with spaces to [`NPY_HEADER`] bytes; `shape` is what stands within the
/// parentheses.
pub(super) fn npy_header(descr: &str, shape: &str) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    let rest = NPY_HEADER - header.len() - 2;
    header.extend((rest as u16).to_le_bytes());
    let description = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
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
}

impl Member {
    /// What stands before its bytes.
    pub(super) fn local_header(&self, form: Form) -> Vec<u8> {
        let extra = match form {
            Form::Zip => Record::default(),
            Form::Zip64 => Record::default().u16(1).u16(16).u64(self.size).u64(self.size),
        };
        self.fields(Record::default().bytes(b"PK\x03\x04"), form, &Record::default(), &extra).0
    }

    /// What the directory says of it.
    fn entry(&self, form: Form) -> Vec<u8> {
        // The first member's place, 0, fits any field.
        let (offset, extra) = match (form, self.offset) {
            (Form::Zip, offset) => (form.low(offset), Record::default()),
            (Form::Zip64, 0) => (0, Record::default().u16(1).u16(16).u64(self.size).u64(self.size)),
            (Form::Zip64, offset) => {
                (ELSEWHERE, Record::default().u16(1).u16(24).u64(self.size).u64(self.size).u64(offset))
            }
        };
        let attributes = Record::default()
            .u16(0) // no comment
            .u16(0) // disk
            .u16(0) // internal
            .u32(MODE)
            .u32(offset);
        self.fields(Record::default().bytes(b"PK\x01\x02").u16(UNIX | form.version()), form, &attributes, &extra).0
    }

    /// The fields that its header and its directory entry share, and `between` them, behind `head`.
    fn fields(&self, head: Record, form: Form, between: &Record, extra: &Record) -> Record {
        head.u16(form.version())
            .u16(0) // no flags
            .u16(0) // stored
            .u16(0) // midnight
            .u16(DATE)
            .u32(self.checksum)
            .u32(form.low(self.size)) // compressed
            .u32(form.low(self.size)) // uncompressed
            .u16(self.name.len() as u16)
            .u16(extra.0.len() as u16)
            .bytes(&between.0)
            .bytes(self.name.as_bytes())
            .bytes(&extra.0)
    }
}

/// What stands behind all members' bytes, at `start`: an entry for each, and where the entries are.
pub(super) fn directory(form: Form, members: &[Member], start: u64) -> Vec<u8> {
    let entries: Vec<u8> = members.iter().flat_map(|member| member.entry(form)).collect();
    let (count, length) = (members.len(), entries.len() as u64);
    let mut record = Record(entries);
    if form == Form::Zip64 {
        record = record
            .bytes(b"PK\x06\x06")
            .u64(44) // the rest of this record
            .u16(UNIX | form.version())
            .u16(form.version())
            .u32(0) // this disk
            .u32(0) // the directory's disk
            .u64(count as u64) // entries here
            .u64(count as u64) // entries
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
        .u16(count as u16) // entries here
        .u16(count as u16) // entries
        .u32(length as u32) // two short entries at most
        .u32(form.low(start))
        .u16(0) // no comment
        .0
}
