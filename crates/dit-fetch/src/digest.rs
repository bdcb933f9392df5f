//! SHA-256, computed as bytes pass.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::cancel::Cancel;
use crate::error::FetchError;

/// Bytes read or written at a time: large enough for the disk, small beside the memory limit.
pub(crate) const CHUNK: usize = 256 * 1024;

/// A hash that grows with the file.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Lower-case hexadecimal.
    pub(crate) fn hex(&self) -> String {
        hex::encode(self.0.clone().finalize())
    }
}

/// Feeds what is left of `reader` to `hasher`, telling how many bytes passed after each piece.
pub(crate) fn absorb(
    reader: &mut impl Read,
    hasher: &mut Hasher,
    cancel: &Cancel,
    mut passed: impl FnMut(u64),
) -> Result<io::Result<u64>, FetchError> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        cancel.check()?;
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(Ok(total)),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
                passed(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Ok(Err(e)),
        }
    }
}

/// Length and hash of a whole file.
pub(crate) fn hash_file(path: &Path, cancel: &Cancel, passed: impl FnMut(u64)) -> Result<(u64, String), FetchError> {
    let mut file = File::open(path).map_err(|e| FetchError::io("open", path, e))?;
    let mut hasher = Hasher::default();
    let bytes = absorb(&mut file, &mut hasher, cancel, passed)?.map_err(|e| FetchError::io("read", path, e))?;
    Ok((bytes, hasher.hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        #[track_caller]
        fn check(content: &[u8], expected: &str) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, content).unwrap();
            let (bytes, hash) = hash_file(&path, &Cancel::new(), |_| ()).unwrap();
            assert_eq!((bytes, hash.as_str()), (content.len() as u64, expected));
        }
        // FIPS 180-4's own examples.
        check(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        check(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check(&vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}
