use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// What can be appended to, and cut.
pub(crate) trait Sink: Write + fmt::Debug + Send {
    /// Takes away what is beyond `length` bytes.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Sink for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// A file that grows by whole pieces.
///
/// A disk that fills up takes a part of a piece. Were the next piece written behind that once there is room, no reader could tell
/// where it begins; so a part is cut off again, at the latest before the next piece.
#[derive(Debug)]
pub(crate) struct AppendFile {
    sink: Box<dyn Sink>,
    /// Bytes of whole pieces.
    length: u64,
    /// Whether a part of a piece may follow them.
    torn: bool,
}

impl AppendFile {
    /// Behind the `length` bytes that `sink` has.
    pub(crate) fn new(sink: Box<dyn Sink>, length: u64) -> Self {
        Self { sink, length, torn: false }
    }

    /// A file that is not there yet.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(Box::new(File::create_new(path)?), 0))
    }

    /// A file of lines, made if it is not there. A last line without its end, as a power cut leaves one, is taken away.
    pub(crate) fn of_lines(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let text = fs::read(path)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        Ok(Self { sink: Box::new(file), length: whole as u64, torn: whole < text.len() })
    }

    /// Appends a piece, or nothing.
    pub(crate) fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.mend()?;
        self.torn = true;
        match self.sink.write_all(piece) {
            Ok(()) => {
                self.torn = false;
                self.length += piece.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Where it cannot be cut now, it is before the next piece.
                let _ = self.mend();
                Err(error)
            }
        }
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.sink.cut(self.length)?;
            self.torn = false;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A file on a disk with so much room, which its owner changes.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Disk(Arc<Mutex<OnDisk>>);

    #[derive(Debug, Default)]
    struct OnDisk {
        bytes: Vec<u8>,
        room: usize,
        cuts: bool,
    }

    impl Disk {
        /// With room for `room` bytes in all.
        pub(crate) fn of(room: usize) -> Self {
            let disk = Self::default();
            disk.set(room, true);
            disk
        }

        /// Has room for `room` bytes from now on, and lets files be cut or not.
        pub(crate) fn set(&self, room: usize, cuts: bool) {
            let mut disk = self.0.lock().unwrap();
            (disk.room, disk.cuts) = (room, cuts);
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().bytes.clone()
        }

        pub(crate) fn file(&self) -> AppendFile {
            AppendFile::new(Box::new(self.clone()), 0)
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let taken = bytes.len().min(disk.room.saturating_sub(disk.bytes.len()));
            disk.bytes.extend(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Disk {
        fn cut(&mut self, length: u64) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            if !disk.cuts {
                return Err(io::ErrorKind::Other.into());
            }
            disk.bytes.truncate(length as usize);
            Ok(())
        }
    }

    #[test]
    fn a_part_of_a_piece_is_cut_off_now_or_before_the_next() {
        for cuts in [true, false] {
            let disk = Disk::of(5);
            disk.set(5, cuts);
            let mut file = disk.file();
            file.append(b"one ").unwrap();
            assert!(file.append(b"two ").is_err());
            assert_eq!(disk.bytes(), if cuts { &b"one "[..] } else { b"one t" });
            // As long as it cannot be cut, nothing follows it.
            disk.set(100, cuts);
            assert_eq!(file.append(b"three ").is_ok(), cuts);
            disk.set(100, true);
            file.append(b"four ").unwrap();
            assert_eq!(disk.bytes(), if cuts { &b"one three four "[..] } else { b"one four " });
        }
    }

    #[test]
    fn a_line_without_an_end_is_replaced_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        for (before, after) in [("a\nb\n", "a\nb\nc\n"), ("a\nhal", "a\nc\n"), ("hal", "c\n"), ("", "c\n")] {
            let path = folder.path().join("lines");
            fs::write(&path, before).unwrap();
            AppendFile::of_lines(&path).unwrap().append(b"c\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }
}
