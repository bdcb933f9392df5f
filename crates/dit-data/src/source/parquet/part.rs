use std::io::BufReader;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use crate::Error;
use crate::source::file::{FileReader, Files};

/// One of many files, opened when it is read. Readers do not share a position, so that threads can use it at once.
pub(super) struct Part {
    files: Arc<Files>,
    index: usize,
    len: u64,
}

impl Part {
    pub(super) fn new(files: Arc<Files>, index: usize) -> std::result::Result<Self, Error> {
        let len = files.get(index)?.len();
        Ok(Self { files, index, len })
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Part {
    type T = BufReader<FileReader>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(self.files.get(self.index).map_err(external)?.reader(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of a file of {}", self.len)));
        }
        let mut bytes = vec![0; length];
        self.files.get(self.index).and_then(|file| file.read_exact_at(&mut bytes, start)).map_err(external)?;
        Ok(bytes.into())
    }
}
