//! A pickle's bytes, read front to back.

const CUT_SHORT: &str = "the pickle is cut short";

/// A pickle's bytes and how far they are read.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    // Invariant: at most bytes.len().
    at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes[self.at..].get(..len).ok_or(CUT_SHORT)?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| CUT_SHORT.into())
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A length of one byte.
    pub(super) fn len1(&mut self) -> Result<usize, String> {
        self.u8().map(usize::from)
    }

    /// A length of four bytes.
    pub(super) fn len4(&mut self) -> Result<usize, String> {
        let len = u32::from_le_bytes(self.array()?);
        usize::try_from(len).map_err(|_| CUT_SHORT.into())
    }

    /// A length of eight bytes.
    pub(super) fn len8(&mut self) -> Result<usize, String> {
        let len = u64::from_le_bytes(self.array()?);
        usize::try_from(len).map_err(|_| CUT_SHORT.into())
    }

    /// A line of text, without its end.
    pub(super) fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT_SHORT)?;
        let line = std::str::from_utf8(&rest[..len]).map_err(|_| "a global's name is not UTF-8")?;
        self.at += len + 1;
        Ok(line)
    }

    /// Checks that at least `len` bytes follow.
    pub(super) fn require(&self, len: usize) -> Result<(), String> {
        if len > self.bytes.len() - self.at { Err(CUT_SHORT.into()) } else { Ok(()) }
    }
}
