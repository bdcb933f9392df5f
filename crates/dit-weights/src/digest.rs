//! SHA-256 of files.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use sha2::{Digest, Sha256};

use crate::Error;

/// The SHA-256 of the bytes of `paths`, one after another, in lower-case hexadecimal.
///
/// # Errors
/// [`Error::Io`].
pub fn sha256_of(paths: &[impl AsRef<Path>]) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// The files of a checkpoint and their SHA-256, computed when first asked for.
#[derive(Debug)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    sha256: OnceLock<String>,
}

impl Files {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, sha256: OnceLock::new() }
    }

    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    pub(crate) fn sha256(&self) -> Result<&str, Error> {
        if let Some(known) = self.sha256.get() {
            return Ok(known);
        }
        let computed = sha256_of(&self.paths)?;
        Ok(self.sha256.get_or_init(|| computed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_all_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "bc", ""].map(|text| {
            let path = folder.path().join(format!("{text}.txt"));
            std::fs::write(&path, text).unwrap();
            path
        });
        // SHA-256 of "abc": FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let files = Files::new(paths.to_vec());
        assert_eq!(files.sha256().unwrap(), expected);
        std::fs::remove_file(&paths[0]).unwrap();
        assert_eq!(files.sha256().unwrap(), expected);
        assert!(matches!(sha256_of(&paths), Err(Error::Io { action: "open", .. })));
    }
}
