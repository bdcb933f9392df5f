use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{EncodedBatch, MomentsLayout, shard_file::BatchHead};
use crate::Error;

const MAGIC: &[u8; 8] = b"DITJRNL1";

/// Where the unfinished shards of a folder are kept, batch by batch, so that an interrupted process loses only the batch it
/// was at.
#[derive(Debug, Clone)]
pub struct Journals {
    folder: PathBuf,
    layout: MomentsLayout,
    digest: [u8; 32],
}

/// The journal of one shard, open for the next batch.
///
/// After a header that names the settings come frames: length, SHA-256, and the batch itself. A frame that was cut short, or
/// was not yet on disk when the power went, does not match its hash; it and what follows it are made again.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journals {
    pub(crate) fn new(folder: &Path, layout: MomentsLayout, digest: [u8; 32]) -> Self {
        Self { folder: folder.to_owned(), layout, digest }
    }

    /// Whether shard `index` has a journal.
    pub fn exists(&self, index: usize) -> bool {
        journal_path(&self.folder, index).is_file()
    }

    /// Opens the journal of shard `index`, whose first record is `first` and which covers `covered` records, and reads what it
    /// has of the shard from its beginning.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(&self, index: usize, first: u64, covered: u64) -> Result<(Journal, Vec<EncodedBatch>), Error> {
        let path = journal_path(&self.folder, index);
        let failed = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed("open"))?;
        let mut batches = Vec::new();
        let mut sound = 0;
        let mut head = [0; 40];
        if read_whole(&mut file, &mut head).map_err(failed("read"))? && head[..8] == *MAGIC && head[8..] == self.digest
        {
            sound = head.len() as u64;
            let mut next = first;
            let longest = self.longest_frame(covered);
            while let Some((batch, length)) = read_frame(&mut file, longest).map_err(failed("read"))? {
                let end = next.saturating_add(batch.head.covered);
                if batch.head.first != next || end > first + covered || !batch.is_sound(&self.layout) {
                    break;
                }
                next = end;
                sound += length;
                batches.push(batch);
            }
        }
        file.set_len(sound).map_err(failed("write"))?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(sound)).map_err(failed("write"))?;
        let mut journal = Journal { file, path };
        if sound == 0 {
            journal.append_bytes(&[&MAGIC[..], &self.digest].concat())?;
        }
        Ok((journal, batches))
    }

    /// The shape of a record's moments.
    pub fn layout(&self) -> MomentsLayout {
        self.layout
    }

    /// No frame of a shard of this many records is longer: names and reasons have 64 KiB a record.
    fn longest_frame(&self, covered: u64) -> u64 {
        covered.saturating_mul(self.layout.record_bytes() as u64 + (1 << 16)).saturating_add(1 << 16)
    }
}

impl Journal {
    /// Keeps a batch.
    ///
    /// # Errors
    /// [`Error::Io`], for example on a full disk; what was kept before stays.
    pub fn append(&mut self, batch: &EncodedBatch) -> Result<(), Error> {
        let head = serde_json::to_vec(&batch.head).map_err(|error| self.failed(error.into()))?;
        let length = 8 + head.len() + batch.moments.len();
        let mut frame = Vec::with_capacity(40 + length);
        frame.extend((length as u64).to_le_bytes());
        frame.extend([0; 32]);
        frame.extend((head.len() as u64).to_le_bytes());
        frame.extend(head);
        frame.extend(&batch.moments);
        let hash = Sha256::digest(&frame[40..]);
        frame[8..40].copy_from_slice(&hash);
        self.append_bytes(&frame)
    }

    fn append_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Io { action: "write", path: self.path.clone(), source }
    }
}

/// The journal of shard `index`.
pub(crate) fn journal_path(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!(".shard-{index:06}.journal"))
}

/// Whether a file's name is that of a journal.
pub(crate) fn is_journal(name: &str) -> bool {
    index_of(name).is_some()
}

/// Of which shard a file of this name is the journal.
pub(crate) fn index_of(name: &str) -> Option<usize> {
    name.strip_prefix(".shard-")?.strip_suffix(".journal")?.parse().ok()
}

/// Takes the journal of a finished shard away.
pub(crate) fn remove(folder: &Path, index: usize) -> Result<(), Error> {
    let path = journal_path(folder, index);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::Io { action: "remove", path, source: error }),
        _ => Ok(()),
    }
}

/// Fills `buffer`; false where the file ends before.
fn read_whole(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The next frame and its length in the file; none where the file ends or is not sound.
fn read_frame(file: &mut File, longest: u64) -> io::Result<Option<(EncodedBatch, u64)>> {
    let mut start = [0; 40];
    if !read_whole(file, &mut start)? {
        return Ok(None);
    }
    let (length, hash) = start.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
    if length > longest {
        return Ok(None);
    }
    let mut payload = Vec::new();
    file.take(length).read_to_end(&mut payload)?;
    if payload.len() as u64 != length || Sha256::digest(&payload)[..] != *hash {
        return Ok(None);
    }
    let Some((head_length, rest)) = payload.split_first_chunk::<8>() else { return Ok(None) };
    let Some((head, moments)) = rest.split_at_checked(u64::from_le_bytes(*head_length) as usize) else {
        return Ok(None);
    };
    let Ok(head) = serde_json::from_slice::<BatchHead>(head) else { return Ok(None) };
    Ok(Some((EncodedBatch { head, moments: moments.to_vec() }, 40 + length)))
}
