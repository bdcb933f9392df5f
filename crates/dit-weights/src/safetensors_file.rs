//! Safetensors files, memory-mapped.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use crate::{Error, TensorInfo, TensorSource, TensorView, file_bytes::FileBytes, safetensors_header::Header};

/// A safetensors file whose header is checked and whose values are read where they lie.
///
/// The file must not change while it is open: another process that shortens a mapped file takes the pages away, and reading
/// them then ends the process. Every file that this crate writes replaces the old one by a rename, which is safe.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    bytes: FileBytes,
    header: Header,
}

impl SafetensorsFile {
    /// Maps the file at `path` and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::EmptyFile`], or [`Error::Safetensors`] where the header is malformed, the file is cut short, or
    /// tensors overlap.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::map(path, &File::open(path).map_err(Error::io("open", path))?)
    }

    /// [`open`](Self::open) of what is opened already.
    pub(crate) fn map(path: &Path, file: &File) -> Result<Self, Error> {
        if file.metadata().map_err(Error::io("open", path))?.len() == 0 {
            return Err(Error::EmptyFile { path: path.to_owned() });
        }
        // SAFETY: that nobody shortens the file meanwhile is the documented condition of this type; the crate's own writers only
        // ever rename over it.
        let bytes = unsafe { FileBytes::map(file) }.map_err(Error::io("map", path))?;
        let header = Header::parse(&bytes).map_err(|problem| Error::safetensors(path, problem))?;
        Ok(Self { path: path.to_owned(), bytes, header })
    }

    /// A file that is already in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Safetensors`], as [`open`](Self::open).
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, Error> {
        let path = name.into();
        let header = Header::parse(&bytes).map_err(|problem| Error::safetensors(&path, problem))?;
        Ok(Self { path, bytes: FileBytes::Owned(bytes), header })
    }

    /// The text that the file carries beside its tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl TensorSource for SafetensorsFile {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.header.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let missing = || Error::NoSuchTensor { name: name.to_owned() };
        let TensorInfo { dtype, shape } = self.header.infos.get(name).ok_or_else(missing)?;
        let range = self.header.ranges.get(name).ok_or_else(missing)?;
        let data = self.bytes.get(range.clone()).ok_or_else(missing)?;
        TensorView::new(*dtype, shape.clone(), data)
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        let dtype = self.header.unsupported.get(name)?;
        Some(format!("its element type {dtype} is not supported"))
    }

    fn prefetch(&self, name: &str) {
        if let Some(range) = self.header.ranges.get(name) {
            self.bytes.prefetch(range);
        }
    }

    fn release(&self, name: &str) {
        if let Some(range) = self.header.ranges.get(name) {
            self.bytes.release(range);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::{MemorySource, write_safetensors};

    #[test]
    fn the_disk_is_asked_for_what_is_prefetched_not_for_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensor = TensorView::from_f32(vec![2], &[1.0, 2.0]).unwrap();
        let source: MemorySource = [("a", tensor)].into_iter().collect();
        write_safetensors(&path, &source, &BTreeMap::new()).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        file.read("a").unwrap();
        assert_eq!(file.bytes.asked(), 0);
        file.prefetch("b");
        assert_eq!(file.bytes.asked(), 0);
        file.prefetch("a");
        assert_eq!(file.bytes.asked(), 1);
    }
}
