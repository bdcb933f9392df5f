//! `NAME.part`: what has arrived of a file, and `NAME.part.json`: what it is a part of.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::digest::{Hasher, absorb};
use crate::error::FetchError;

/// Where the bytes of a part came from. Written before the first of them, so that no part outlives its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Origin {
    /// The address asked (not the one redirected to, which may be signed and short-lived).
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified: Option<String>,
    /// Bytes of the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<u64>,
    /// The hash that the hub names for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
}

impl Origin {
    /// What If-Range may hold: a strong ETag, else the date (RFC 9110, section 13.1.5).
    pub(crate) fn validator(&self) -> Option<String> {
        let strong = self.etag.as_ref().filter(|tag| tag.starts_with('"'));
        strong.or(self.last_modified.as_ref()).cloned()
    }

    /// Whether `other`, a later answer, tells of another file than this one.
    pub(crate) fn contradicts(&self, other: &Origin) -> bool {
        fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            matches!((a, b), (Some(a), Some(b)) if a != b)
        }
        differ(&self.total, &other.total)
            || differ(&self.sha256, &other.sha256)
            || self.url == other.url
                && (differ(&self.etag, &other.etag)
                    || (self.etag.is_none() || other.etag.is_none())
                        && differ(&self.last_modified, &other.last_modified))
    }
}

/// How a part is known to hold what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A hash will tell.
    Hash,
    /// None will. After a power failure a file may have its length and zeros in place of what was never flushed, so
    /// the part is flushed every so many bytes, and only what was flushed counts.
    Flush {
        /// Bytes between two flushes.
        every: u64,
    },
}

impl Proof {
    /// Flushes seldom enough to cost nothing, and often enough to lose little.
    pub(crate) const FLUSH: Proof = Proof::Flush { every: 64 << 20 };
}

/// `NAME.part.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    pub(crate) origin: Origin,
    /// Bytes that were on the disk when this was written.
    pub(crate) flushed: u64,
}

impl Note {
    pub(crate) fn write(&self, part: &Path) -> Result<(), FetchError> {
        write_json(&sidecar(part), self)
    }

    fn read(part: &Path) -> Option<Note> {
        serde_json::from_slice(&std::fs::read(sidecar(part)).ok()?).ok()
    }
}

/// `path` with `suffix` after its whole name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The growing file, and the hash of what it holds.
///
/// Invariant: `len` bytes are in the file, the file's cursor is at its end, and `hasher` has seen exactly them.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    len: u64,
    /// As the note says; at most `len`.
    flushed: u64,
    proof: Proof,
    origin: Option<Origin>,
}

impl Part {
    /// Opens or begins the part of `target`, hashing what is there; `passed` is told the bytes hashed.
    pub(crate) fn open(
        target: &Path,
        proof: Proof,
        cancel: &Cancel,
        passed: impl FnMut(u64),
    ) -> Result<Part, FetchError> {
        let path = with_suffix(target, ".part");
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| FetchError::io("create", dir, e))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| FetchError::io("open", &path, e))?;
        let note = Note::read(&path);
        if let (Proof::Flush { .. }, Some(note)) = (proof, &note) {
            let there = file.metadata().map_err(|e| FetchError::io("examine", &path, e))?.len();
            file.set_len(there.min(note.flushed)).map_err(|e| FetchError::io("truncate", &path, e))?;
        }
        let mut hasher = Hasher::default();
        let len = absorb(&mut file, &mut hasher, cancel, passed)?.map_err(|e| FetchError::io("read", &path, e))?;
        let (origin, flushed) = note.map_or((None, 0), |note| (Some(note.origin), note.flushed.min(len)));
        Ok(Part { path, file, hasher, len, flushed, proof, origin })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Throws away what is there.
    pub(crate) fn restart(&mut self) -> Result<(), FetchError> {
        self.file.set_len(0).map_err(|e| FetchError::io("truncate", &self.path, e))?;
        self.file.seek(SeekFrom::Start(0)).map_err(|e| FetchError::io("rewind", &self.path, e))?;
        self.hasher = Hasher::default();
        (self.len, self.flushed) = (0, 0);
        self.origin = None;
        remove(&sidecar(&self.path))
    }

    /// Records where the next bytes come from.
    pub(crate) fn set_origin(&mut self, origin: Origin) -> Result<(), FetchError> {
        if self.origin.as_ref() != Some(&origin) {
            Note { origin: origin.clone(), flushed: self.flushed }.write(&self.path)?;
            self.origin = Some(origin);
        }
        Ok(())
    }

    /// Makes what arrived last through a power failure, where no hash would tell that it did not.
    pub(crate) fn flush(&mut self) -> Result<(), FetchError> {
        let (Proof::Flush { .. }, Some(origin)) = (self.proof, &self.origin) else { return Ok(()) };
        if self.flushed < self.len {
            self.file.sync_data().map_err(|e| FetchError::io("flush", &self.path, e))?;
            Note { origin: origin.clone(), flushed: self.len }.write(&self.path)?;
            self.flushed = self.len;
        }
        Ok(())
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        if let Err(e) = self.file.write_all(bytes) {
            // Some of it may be in the file: put back what the hash has seen.
            let _ = self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            return Err(FetchError::io("write", &self.path, e));
        }
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        match self.proof {
            Proof::Flush { every } if self.len - self.flushed >= every => self.flush(),
            _ => Ok(()),
        }
    }

    /// SHA-256 of what is there.
    pub(crate) fn sha256(&self) -> String {
        self.hasher.hex()
    }

    /// Makes the part the whole file `target`: flushed to the disk, then renamed, so that a file of that name is
    /// always whole.
    pub(crate) fn promote(self, target: &Path) -> Result<(), FetchError> {
        self.move_to(target)
    }

    /// Puts a part that proved bad where nothing will use it.
    pub(crate) fn quarantine(self, bad: &Path) -> Result<(), FetchError> {
        self.move_to(bad)
    }

    /// Deletes it.
    pub(crate) fn discard(self) -> Result<(), FetchError> {
        remove(&self.path)?;
        remove(&sidecar(&self.path))
    }

    fn move_to(self, target: &Path) -> Result<(), FetchError> {
        self.file.sync_all().map_err(|e| FetchError::io("flush", &self.path, e))?;
        std::fs::rename(&self.path, target).map_err(|e| FetchError::io("rename", &self.path, e))?;
        sync_folder_of(target)?;
        remove(&sidecar(&self.path))
    }
}

fn sidecar(part: &Path) -> PathBuf {
    with_suffix(part, ".json")
}

/// Makes a rename in the folder of `path` last through a power failure.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), FetchError> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    dit_files::sync_folder(dir).map_err(|e| FetchError::io("flush", dir, e))
}

/// Deletes a file that may not exist.
pub(crate) fn remove(path: &Path) -> Result<(), FetchError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FetchError::io("delete", path, e)),
        _ => Ok(()),
    }
}

/// Writes a small JSON file as a whole or not at all. The temporary file's name is fixed, unlike that of
/// `dit_files::write_atomically`, so that killed runs leave no litter: only one process writes a given file at a time.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), FetchError> {
    let fail = |e| FetchError::io("write", path, e);
    let temporary = with_suffix(path, ".tmp");
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| fail(e.into()))?;
    json.push(b'\n');
    let mut file = File::create(&temporary).map_err(fail)?;
    file.write_all(&json).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&temporary, path).map_err(fail)?;
    sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str, etag: Option<&str>, date: Option<&str>, total: Option<u64>) -> Origin {
        let own = |s: Option<&str>| s.map(str::to_owned);
        Origin { url: url.to_owned(), etag: own(etag), last_modified: own(date), total, sha256: None }
    }

    #[test]
    fn a_part_survives_being_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("sub/x.pt");
        let cancel = Cancel::new();
        let mut part = Part::open(&target, Proof::Hash, &cancel, |_| ()).unwrap();
        let from = origin("http://h/x", Some("\"1\""), None, Some(6));
        part.set_origin(from.clone()).unwrap();
        part.write(b"abc").unwrap();
        drop(part);

        let mut hashed = 0;
        let mut part = Part::open(&target, Proof::Hash, &cancel, |n| hashed += n).unwrap();
        assert_eq!((part.len(), hashed, part.origin()), (3, 3, Some(&from)));
        part.write(b"def").unwrap();
        assert_eq!(part.sha256(), "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
        part.promote(&target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"abcdef");
        let left: Vec<_> = std::fs::read_dir(target.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_restart_forgets_everything() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let mut part = Part::open(&target, Proof::Hash, &Cancel::new(), |_| ()).unwrap();
        part.set_origin(origin("http://h/x", None, None, None)).unwrap();
        part.write(b"old and long").unwrap();
        part.restart().unwrap();
        assert_eq!((part.len(), part.origin()), (0, None));
        part.write(b"abc").unwrap();
        assert_eq!(part.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(std::fs::read(with_suffix(&target, ".part")).unwrap(), b"abc");
    }

    #[test]
    fn an_unreadable_origin_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        std::fs::write(dir.path().join("x.part"), b"abc").unwrap();
        std::fs::write(dir.path().join("x.part.json"), b"{\"url\": ").unwrap();
        let part = Part::open(&target, Proof::Hash, &Cancel::new(), |_| ()).unwrap();
        assert_eq!((part.len(), part.origin()), (3, None));
    }

    #[test]
    fn without_a_hash_only_what_was_flushed_counts() {
        let every = 4;
        #[track_caller]
        fn check(proof: Proof, pieces: &[&[u8]], flush: bool, expected: &[u8]) {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("x");
            let mut part = Part::open(&target, proof, &Cancel::new(), |_| ()).unwrap();
            part.set_origin(origin("http://h/x", None, None, None)).unwrap();
            for piece in pieces {
                part.write(piece).unwrap();
            }
            if flush {
                part.flush().unwrap();
            }
            drop(part);
            // A hole, as a power failure leaves it: the length without the bytes.
            let there = std::fs::OpenOptions::new().append(true).open(with_suffix(&target, ".part")).unwrap();
            there.set_len(there.metadata().unwrap().len() + 1000).unwrap();
            let mut part = Part::open(&target, proof, &Cancel::new(), |_| ()).unwrap();
            assert_eq!(part.len(), expected.len() as u64);
            let mut hasher = Hasher::default();
            hasher.update(expected);
            assert_eq!(part.sha256(), hasher.hex());
            // It goes on from there.
            part.write(b"!").unwrap();
            drop(part);
            let bytes = std::fs::read(with_suffix(&target, ".part")).unwrap();
            assert_eq!(bytes, [expected, b"!"].concat());
        }
        check(Proof::Flush { every }, &[b"ab"], false, b"");
        check(Proof::Flush { every }, &[b"ab"], true, b"ab");
        check(Proof::Flush { every }, &[b"abc", b"de", b"f"], false, b"abcde");
        check(Proof::Flush { every }, &[b"abcdefgh", b"ijkl", b"m"], false, b"abcdefghijkl");
        // A hash finds the hole; what was not flushed has most likely survived.
        check(Proof::Hash, &[b"ab"], false, &[&b"ab"[..], &[0; 1000]].concat());
    }

    #[test]
    fn a_part_that_is_shorter_than_its_note_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let path = with_suffix(&target, ".part");
        std::fs::write(&path, b"abc").unwrap();
        Note { origin: origin("http://h/x", None, None, None), flushed: 9 }.write(&path).unwrap();
        let part = Part::open(&target, Proof::FLUSH, &Cancel::new(), |_| ()).unwrap();
        assert_eq!((part.len(), std::fs::read(&path).unwrap()), (3, b"abc".to_vec()));
    }

    #[test]
    fn changes_of_the_remote_file_are_noticed() {
        #[track_caller]
        fn check(
            a: (&str, Option<&str>, Option<&str>, Option<u64>),
            b: (&str, Option<&str>, Option<&str>, Option<u64>),
            expected: bool,
        ) {
            assert_eq!(origin(a.0, a.1, a.2, a.3).contradicts(&origin(b.0, b.1, b.2, b.3)), expected);
        }
        let known = ("u", Some("\"1\""), Some("Mon"), Some(5));
        check(known, known, false);
        check(known, ("u", Some("\"2\""), Some("Mon"), Some(5)), true);
        check(known, ("u", Some("\"1\""), Some("Tue"), Some(5)), false);
        check(known, ("u", None, Some("Tue"), Some(5)), true);
        check(known, ("u", None, None, None), false);
        check(known, ("u", Some("\"1\""), None, Some(6)), true);
        // Another host has tags and dates of its own; the size must still agree.
        check(known, ("v", Some("\"2\""), Some("Tue"), Some(5)), false);
        check(known, ("v", None, None, Some(6)), true);
    }

    #[test]
    fn only_strong_tags_and_dates_validate() {
        #[track_caller]
        fn check(etag: Option<&str>, date: Option<&str>, expected: Option<&str>) {
            assert_eq!(origin("u", etag, date, None).validator().as_deref(), expected);
        }
        check(Some("\"a\""), Some("Mon"), Some("\"a\""));
        check(Some("W/\"a\""), Some("Mon"), Some("Mon"));
        check(Some("W/\"a\""), None, None);
        check(None, None, None);
    }
}
