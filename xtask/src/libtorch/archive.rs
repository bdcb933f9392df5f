//! Taking files out of wheels and zip archives.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use zip::ZipArchive;
use zip::result::ZipError;

/// An opened wheel or zip archive.
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
}

/// A file in it, and where it is to go.
pub struct Planned {
    index: usize,
    to: PathBuf,
    bytes: u64,
}

impl Planned {
    /// Its path below the target folder.
    pub fn to(&self) -> &Path {
        &self.to
    }

    /// Its size once unpacked.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Archive {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        let zip = ZipArchive::new(BufReader::with_capacity(1 << 16, file))
            .with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Self { path: path.to_owned(), zip })
    }

    /// Every file for which `place` names a path below the target folder.
    pub fn plan(&mut self, place: impl Fn(&str) -> Option<PathBuf>) -> Result<Vec<Planned>> {
        let mut planned = Vec::new();
        for index in 0..self.zip.len() {
            let entry = self.zip.by_index_raw(index).with_context(|| format!("{} is damaged", self.path.display()))?;
            if entry.is_dir() {
                continue;
            }
            let name = entry.name().with_context(|| format!("{} is damaged", self.path.display()))?;
            if let Some(to) = place(&name) {
                if !to.components().all(|part| matches!(part, Component::Normal(_))) {
                    bail!("{} holds a file that would land outside its folder: {name}", self.path.display());
                }
                planned.push(Planned { index, to, bytes: entry.size() });
            }
        }
        Ok(planned)
    }

    /// Writes them below `folder`.
    pub fn extract(&mut self, planned: &[Planned], folder: &Path, bar: &ProgressBar) -> Result<()> {
        for file in planned {
            let to = folder.join(&file.to);
            self.extract_one(file.index, &to, bar)
                .with_context(|| format!("{} cannot be unpacked from {}", to.display(), self.path.display()))?;
        }
        Ok(())
    }

    fn extract_one(&mut self, index: usize, to: &Path, bar: &ProgressBar) -> Result<()> {
        let mut entry = self.zip.by_index(index)?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::create(to)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = entry.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            file.write_all(bytes)?;
            bar.inc(count as u64);
        }
    }

    /// The text of the one file whose name ends so.
    pub fn text(&mut self, ending: &str) -> Result<String> {
        let name = self.zip.file_names().flatten().find(|name| name.ends_with(ending)).map(|name| name.into_owned());
        let name = name.with_context(|| format!("{} has no {ending}", self.path.display()))?;
        let mut text = String::new();
        self.zip
            .by_name(&name)?
            .read_to_string(&mut text)
            .with_context(|| format!("{} is damaged", self.path.display()))?;
        Ok(text)
    }
}

/// Whether it failed because an archive is not what was once packed: only another download can help.
pub fn is_damage(error: &anyhow::Error) -> bool {
    // Where reading fails, the zip crate wraps its errors into the system's, which then are no cause of their own.
    let wrapped = |error: &io::Error| error.get_ref().is_some_and(|inner| inner.downcast_ref().is_some_and(is_not_io));
    error.chain().any(|cause| match (cause.downcast_ref(), cause.downcast_ref::<io::Error>()) {
        (Some(error), _) => is_not_io(error),
        // A wrong checksum; a deflate stream that is none; an early end.
        (None, Some(error)) => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => true,
            _ => wrapped(error),
        },
        (None, None) => false,
    })
}

/// The archive's fault and not the system's.
fn is_not_io(error: &ZipError) -> bool {
    !matches!(error, ZipError::Io(_))
}

/// What they take up once unpacked.
pub fn total(planned: &[Planned]) -> u64 {
    planned.iter().map(|file| file.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn archive(dir: &Path, files: &[(&str, &str)]) -> Archive {
        let path = dir.join("a.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, text) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        Archive::open(&path).unwrap()
    }

    #[test]
    fn only_what_is_placed_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive =
            archive(dir.path(), &[("torch/lib/a.so", "aa"), ("torch/x.py", "x"), ("t-1.dist-info/METADATA", "M")]);
        let planned = archive.plan(|name| Some(name.strip_prefix("torch/lib/")?.into())).unwrap();
        assert_eq!(total(&planned), 2);
        let out = dir.path().join("out");
        archive.extract(&planned, &out, &ProgressBar::hidden()).unwrap();
        assert_eq!(fs::read_to_string(out.join("a.so")).unwrap(), "aa");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
        assert_eq!(archive.text(".dist-info/METADATA").unwrap(), "M");
        assert!(archive.text("RECORD").is_err());
    }

    #[test]
    fn nothing_lands_outside() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../up", "/etc/x", "a/../../b"] {
            let mut archive = archive(dir.path(), &[(name, "x")]);
            assert!(archive.plan(|name| Some(name.into())).is_err(), "{name}");
        }
    }

    #[test]
    fn whatever_byte_is_wrong_the_content_is_right_or_it_is_damage() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.whl");
            let mut writer = ZipWriter::new(File::create(&path).unwrap());
            writer.start_file("lib/a.so", SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(&b"a library, again and again; ".repeat(4)).unwrap();
            writer.finish().unwrap();
            let whole = fs::read(&path).unwrap();
            let unpack = || -> Result<Vec<u8>> {
                let out = dir.path().join("out");
                let mut archive = Archive::open(&path)?;
                // A name that is none any more is not placed.
                let planned = archive.plan(|name| (name == "lib/a.so").then(|| "a.so".into()))?;
                archive.extract(&planned, &out, &ProgressBar::hidden())?;
                Ok(if planned.is_empty() { Vec::new() } else { fs::read(out.join("a.so"))? })
            };
            let right = unpack().unwrap();
            let mut damaged = 0;
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x10;
                fs::write(&path, &bytes).unwrap();
                match unpack() {
                    Ok(content) => assert!(content.is_empty() || content == right, "{method:?}, byte {at}"),
                    Err(error) => {
                        assert!(is_damage(&error), "{method:?}, byte {at}: {error:#}");
                        damaged += 1;
                    }
                }
            }
            assert!(damaged > 50, "{method:?}: {damaged} of {}", whole.len());
        }
        let full = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull)).context("x cannot be unpacked");
        assert!(!is_damage(&full) && !is_damage(&ZipError::Io(io::ErrorKind::StorageFull.into()).into()));
    }

    #[test]
    fn damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.whl");
        fs::write(&path, "PK\x03\x04 and no more").unwrap();
        let error = Archive::open(&path).err().unwrap().to_string();
        assert!(error.ends_with("cut.whl is damaged"), "{error}");
    }
}
