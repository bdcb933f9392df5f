use std::{
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use dit_files::{AtomicFile, WriteError};
use dit_vae::Latents;
use serde_json::json;

use crate::Error;

/// Bytes of the length and the JSON header: fixed, so that the number of rows can be corrected at the end. The format allows
/// spaces after the JSON.
const HEADER: usize = 512;

/// Streams latents into a safetensors file: `latents` (N, C, H, W), fp32. Memory does not grow with N.
pub(crate) struct LatentsWriter {
    output: BufWriter<AtomicFile>,
    path: PathBuf,
    /// (C, H, W).
    shape: [i64; 3],
    rows: u64,
    software: String,
}

impl LatentsWriter {
    /// Begins a file of latents of `shape` (C, H, W).
    pub(crate) fn create(path: &Path, shape: [i64; 3], software: &str) -> Result<Self, Error> {
        let output = BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?);
        let mut writer = Self { output, path: path.to_owned(), shape, rows: 0, software: software.to_owned() };
        writer.write(&[b' '; HEADER])?; // `finish` fills it in
        Ok(writer)
    }

    /// Appends a batch, (N, C, H, W).
    pub(crate) fn push(&mut self, latents: &Latents) -> Result<(), Error> {
        let bytes: Vec<u8> = latents.to_vec().iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(&bytes)?;
        self.rows += latents.tensor().size()[0] as u64;
        Ok(())
    }

    /// Completes the file and puts it in its place, or beside it as a part if it has fewer than `expected` rows; without any row no
    /// file is made. Returns where it is.
    pub(crate) fn finish(self, expected: u64) -> Result<Option<PathBuf>, Error> {
        let Self { mut output, path, shape: [c, h, w], rows, software } = self;
        if rows == 0 {
            return Ok(None);
        }
        let bytes = rows * (c * h * w * 4) as u64;
        let tensor = json!({"dtype": "F32", "shape": [rows, c as u64, h as u64, w as u64], "data_offsets": [0, bytes]});
        let json = json!({"__metadata__": {"software": software}, "latents": tensor}).to_string();
        let header = [&((HEADER - 8) as u64).to_le_bytes()[..], json.as_bytes()].concat();
        (|| {
            output.seek(SeekFrom::Start(0))?;
            output.write_all(&header)?;
            let file = output.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            // A push that failed may have left part of a batch.
            file.set_len(HEADER as u64 + bytes)?;
            if rows < expected {
                return file.commit_partial();
            }
            file.commit().map(|()| path.clone())
        })()
        .map(Some)
        .map_err(|source| WriteError::new(&path, source).into())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.output.write_all(bytes).map_err(|source| WriteError::new(&self.path, source))?)
    }
}
