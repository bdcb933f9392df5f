//! SHA-256 of files.

use std::{
    fs::{File, Metadata},
    io::{Read, Seek},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use sha2::{Digest as _, Sha256};

use crate::Error;

/// Bytes that are read and hashed at once: few, as whoever takes the work over waits for those that a thread of the least priority
/// is at.
const AT_ONCE: usize = 64 << 10;

/// The SHA-256 of the bytes of `paths`, one after another, in lower-case hexadecimal.
///
/// # Errors
/// [`Error::Io`]; [`Error::Changed`] where a file was written to meanwhile.
pub fn sha256_of(paths: &[impl AsRef<Path>]) -> Result<String, Error> {
    Ok(Digest::open(paths.iter().map(|path| path.as_ref().to_owned()).collect())?.sha256()?.to_owned())
}

/// The SHA-256 of a checkpoint's files, computed once: when it is first asked for, or, from [`start`](Self::start) on, beside
/// other work. Copies share it.
///
/// It is that of the files that were opened with the checkpoint, which are those whose tensors are read: moving or replacing one
/// meanwhile has no effect. Hashing one that was written to is an error. One that is written to later than it is hashed and
/// earlier than it is loaded is seen by [`unchanged`](Self::unchanged), which is for whoever has loaded it.
#[derive(Debug, Clone)]
pub struct Digest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    paths: Vec<PathBuf>,
    files: Vec<(File, Stamp)>,
    sha256: OnceLock<String>,
    /// What has been hashed; whoever holds the lock goes on with it.
    progress: Mutex<Progress>,
    /// What stopped the thread, until it is told.
    failed: Mutex<Option<Error>>,
    started: AtomicBool,
    /// Somebody waits for the result, and takes the work over.
    awaited: AtomicBool,
}

#[derive(Debug, Default)]
struct Progress {
    hasher: Sha256,
    /// Files that are done.
    files: usize,
    /// Bytes of the file at hand that are done.
    bytes: u64,
}

/// What tells that a file was written to.
#[derive(Debug, PartialEq)]
struct Stamp {
    bytes: u64,
    modified: Option<std::time::SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        // Some systems know no times of files.
        Self { bytes: metadata.len(), modified: metadata.modified().ok() }
    }

    /// Whether `file` at `path` still has it.
    fn check(&self, file: &File, path: &Path) -> Result<(), Error> {
        let now = Self::of(&file.metadata().map_err(Error::io("read", path))?);
        if now == *self { Ok(()) } else { Err(Error::Changed { path: path.to_owned() }) }
    }
}

impl Digest {
    /// Opens `paths`, whose bytes are hashed one file after another.
    pub(crate) fn open(paths: Vec<PathBuf>) -> Result<Self, Error> {
        let mut files = Vec::with_capacity(paths.len());
        for path in &paths {
            let file = File::open(path).map_err(Error::io("open", path))?;
            let stamp = Stamp::of(&file.metadata().map_err(Error::io("read", path))?);
            files.push((file, stamp));
        }
        Ok(Self(Arc::new(Shared {
            paths,
            files,
            sha256: OnceLock::new(),
            progress: Mutex::default(),
            failed: Mutex::default(),
            started: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
        })))
    }

    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.0.paths
    }

    /// As [`paths`](Self::paths), opened. Where reading one begins is left open.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.0.files.iter().map(|(file, _)| file)
    }

    /// Begins to hash on a thread of its own, which takes what processor time others leave (on Linux; elsewhere, its share). It
    /// does not keep the process alive. What fails there is told by [`check`](Self::check), and tried again where the result is
    /// asked for.
    pub fn start(&self) {
        if self.0.sha256.get().is_some() || self.0.started.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("sha256".to_owned()).spawn(move || {
            #[cfg(target_os = "linux")]
            let _ = rustix::process::setpriority_process(None, LEAST_PRIORITY);
            if let Err(error) = shared.go_on(|| shared.awaited.load(Ordering::Relaxed)) {
                *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        if let Err(error) = thread {
            tracing::debug!(%error, "SHA-256 waits until it is asked for");
        }
    }

    /// In lower-case hexadecimal. Waits for what is not done yet, and does it on this thread.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Changed`] where a file was written to since it was opened.
    pub fn sha256(&self) -> Result<&str, Error> {
        if self.0.sha256.get().is_none() {
            self.0.awaited.store(true, Ordering::Relaxed);
            self.0.go_on(|| false)?;
        }
        // It stands there once nothing stopped the work.
        Ok(self.0.sha256.get().map_or("", String::as_str))
    }

    /// Whether [`sha256`](Self::sha256) has nothing to wait for.
    pub fn is_done(&self) -> bool {
        self.0.sha256.get().is_some()
    }

    /// Whether anything has stopped the hashing that [`start`](Self::start) began, told once. Waits for nothing.
    ///
    /// # Errors
    /// As [`sha256`](Self::sha256).
    pub fn check(&self) -> Result<(), Error> {
        match self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) if self.0.sha256.get().is_none() => Err(error),
            _ => Ok(()),
        }
    }

    /// That no file was written to since it was opened: asked once tensors are loaded, that they are those of the hash.
    ///
    /// # Errors
    /// [`Error::Changed`], as far as lengths and times of files tell; [`Error::Io`].
    pub fn unchanged(&self) -> Result<(), Error> {
        self.0.files.iter().zip(&self.0.paths).try_for_each(|((file, stamp), path)| stamp.check(file, path))
    }
}

/// Linux counts priorities of threads from −20, the highest, to 19.
#[cfg(target_os = "linux")]
const LEAST_PRIORITY: i32 = 19;

impl Shared {
    /// Hashes what is left until all is done, or `stop` says so; from the beginning again after an error.
    fn go_on(&self, stop: impl Fn() -> bool) -> Result<(), Error> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.hash(&mut progress, stop);
        if result.is_err() {
            *progress = Progress::default();
        }
        result
    }

    fn hash(&self, progress: &mut Progress, stop: impl Fn() -> bool) -> Result<(), Error> {
        if self.sha256.get().is_some() {
            return Ok(());
        }
        let mut buffer = vec![0; AT_ONCE];
        while let (Some((file, stamp)), Some(path)) = (self.files.get(progress.files), self.paths.get(progress.files)) {
            // Told at once, not after gigabytes.
            stamp.check(file, path)?;
            let mut reader = file;
            reader.seek(std::io::SeekFrom::Start(progress.bytes)).map_err(Error::io("read", path))?;
            loop {
                if stop() {
                    return Ok(());
                }
                match reader.read(&mut buffer).map_err(Error::io("read", path))? {
                    0 => break,
                    read => {
                        progress.hasher.update(&buffer[..read]);
                        progress.bytes += read as u64;
                    }
                }
                // It would not end while somebody writes.
                if progress.bytes > stamp.bytes {
                    break;
                }
            }
            if progress.bytes != stamp.bytes {
                return Err(Error::Changed { path: path.clone() });
            }
            stamp.check(file, path)?;
            progress.files += 1;
            progress.bytes = 0;
        }
        let hasher = std::mem::take(&mut progress.hasher);
        let _ = self.sha256.set(hex::encode(hasher.finalize()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    /// SHA-256 of "abc": FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn files(folder: &Path, texts: &[&str]) -> Vec<PathBuf> {
        let write = |(i, text): (usize, &&str)| {
            let path = folder.join(i.to_string());
            fs::write(&path, text).unwrap();
            path
        };
        texts.iter().enumerate().map(write).collect()
    }

    #[test]
    fn the_digest_is_that_of_all_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let paths = files(folder.path(), &["a", "bc", ""]);
        assert_eq!(sha256_of(&paths).unwrap(), ABC);
        for started in [false, true] {
            let digest = Digest::open(paths.clone()).unwrap();
            if started {
                digest.start();
                digest.clone().start();
            }
            assert_eq!(digest.sha256().unwrap(), ABC);
            assert_eq!(digest.clone().sha256().unwrap(), ABC);
        }
        fs::remove_file(&paths[0]).unwrap();
        assert!(matches!(sha256_of(&paths), Err(Error::Io { action: "open", .. })));
    }

    /// A hash that was begun on the thread is the same, wherever it was taken over.
    #[test]
    fn work_is_taken_over_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..3).map(|i| folder.path().join(i.to_string())).collect();
        for (i, path) in paths.iter().enumerate() {
            fs::write(path, vec![i as u8 + 1; 2 * AT_ONCE + 7]).unwrap();
        }
        let expected = sha256_of(&paths).unwrap();
        for chunks in 0..12_usize {
            let digest = Digest::open(paths.clone()).unwrap();
            let left = std::cell::Cell::new(chunks);
            digest.0.go_on(|| left.replace(left.get().saturating_sub(1)) == 0).unwrap();
            assert_eq!(digest.sha256().unwrap(), expected, "after {chunks} parts");
        }
    }

    /// What stopped the thread.
    #[track_caller]
    fn told(digest: &Digest) -> Error {
        let mut tries = (0..12_000).map(|_| thread::sleep(std::time::Duration::from_millis(10)));
        tries.find_map(|()| digest.check().err()).expect("an error")
    }

    #[track_caller]
    fn is_changed(error: &Error, expected: &Path) {
        assert!(matches!(error, Error::Changed { path } if path == expected), "{error}");
    }

    fn append(path: &Path) {
        File::options().append(true).open(path).unwrap().write_all(b"d").unwrap();
    }

    #[test]
    fn a_file_that_is_replaced_counts_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let paths = files(folder.path(), &["a", "bc"]);
        let digest = Digest::open(paths.clone()).unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "x").unwrap();
        fs::rename(&other, &paths[0]).unwrap();
        assert_eq!(digest.sha256().unwrap(), ABC);
        digest.unchanged().unwrap();
    }

    #[test]
    fn a_file_that_is_written_to_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let paths = files(folder.path(), &["a", "bc"]);
        let [before, beside, after] = [(); 3].map(|()| Digest::open(paths.clone()).unwrap());
        assert!(!after.is_done());
        assert_eq!(after.sha256().unwrap(), ABC);
        assert!(after.is_done());
        after.unchanged().unwrap();
        append(&paths[1]);
        for _ in 0..2 {
            is_changed(&before.sha256().unwrap_err(), &paths[1]);
        }
        beside.start();
        is_changed(&told(&beside), &paths[1]);
        beside.check().expect("it is told once");
        // The hash is that of what there was, and whoever loaded what there is now is told.
        assert_eq!(after.sha256().unwrap(), ABC);
        is_changed(&after.unchanged().unwrap_err(), &paths[1]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        // A folder opens, on Unix, and is not read.
        let digest = Digest::open(vec![folder.path().to_owned()]);
        let Ok(digest) = digest else { return };
        digest.start();
        assert!(matches!(told(&digest), Error::Io { action: "read", .. }));
        for _ in 0..2 {
            assert!(matches!(digest.sha256(), Err(Error::Io { action: "read", .. })));
        }
    }
}
