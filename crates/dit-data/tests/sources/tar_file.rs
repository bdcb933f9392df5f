//! Tars written block by block, so that they can be wrong.

/// One member: a header's fields, then data.
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) data: Vec<u8>,
    /// What the header says, where that is not the length of `data`.
    pub(crate) size: Option<u64>,
    /// The second part of a POSIX path.
    pub(crate) prefix: &'static [u8],
    /// Whether the header's sum is right.
    pub(crate) intact: bool,
}

pub(crate) fn entry(name: impl AsRef<[u8]>, kind: u8, data: impl AsRef<[u8]>) -> Entry {
    let (name, data) = (name.as_ref().to_vec(), data.as_ref().to_vec());
    Entry { name, kind, data, size: None, prefix: b"", intact: true }
}

pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    entry(name, b'0', data)
}

/// An attribute of pax, with its own length counted in.
pub(crate) fn attribute(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (1..).find(|&digits| (rest.len() + digits).to_string().len() == digits).unwrap() + rest.len();
    format!("{length}{rest}")
}

impl Entry {
    fn bytes(&self) -> Vec<u8> {
        let mut header = [0; 512];
        header[..self.name.len().min(100)].copy_from_slice(&self.name[..self.name.len().min(100)]);
        header[100..108].copy_from_slice(b"0000644\0");
        let size = self.size.unwrap_or(self.data.len() as u64);
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[156] = self.kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[345..345 + self.prefix.len()].copy_from_slice(self.prefix);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum::<u32>() + u32::from(!self.intact);
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}
