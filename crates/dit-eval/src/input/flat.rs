//! A folder or a tar of pictures without classes, such as a sampler leaves.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use dit_data::Encoded;

use crate::Error;

const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// A tar's unit.
const BLOCK: u64 = 512;
/// The largest picture file that is read.
const MOST_BYTES: u64 = 1 << 29;

/// Pictures in the order of their names.
#[derive(Debug)]
pub(super) struct Flat {
    path: PathBuf,
    entries: Vec<Entry>,
    /// The archive, if it is one.
    tar: Option<File>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// Within the archive.
    offset: u64,
    bytes: u64,
}

impl Flat {
    /// The pictures that lie directly in the folder, or anywhere in the tar, at `path`; none if there are none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let mut entries = Vec::new();
        let mut tar = None;
        if path.is_dir() {
            for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
                let entry = entry.map_err(Error::io("list", path))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if is_picture(&name) && entry.path().is_file() {
                    let bytes = entry.path().metadata().map_err(Error::io("read", path))?.len();
                    entries.push(Entry { name, offset: 0, bytes });
                }
            }
        } else {
            let file = File::open(path).map_err(Error::io("open", path))?;
            entries = members(&file).map_err(Error::io("read", path))?;
            tar = Some(file);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let flat = Self { path: path.to_owned(), entries, tar };
        Ok((!flat.entries.is_empty()).then_some(flat))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn name(&self, index: usize) -> &str {
        self.entries.get(index).map_or("", |entry| &entry.name)
    }

    pub(super) fn read(&self, index: usize) -> Result<Encoded, Error> {
        let path = self.path.join(self.name(index));
        let Some(entry) = self.entries.get(index).filter(|entry| entry.bytes <= MOST_BYTES) else {
            let help = "remove it";
            return Err(Error::Input { path, problem: "it is too large for a picture".to_owned(), help });
        };
        let bytes = match &self.tar {
            None => fs::read(&path).map_err(Error::io("read", &path))?,
            Some(tar) => {
                let mut bytes = vec![0; entry.bytes as usize];
                tar.read_exact_at(&mut bytes, entry.offset).map_err(Error::io("read", &path))?;
                bytes
            }
        };
        Ok(Encoded::File(bytes))
    }
}

fn is_picture(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    !name.starts_with('.')
        && ending.is_some_and(|ending| ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending)))
}

/// The pictures in a tar (POSIX ustar, or the older form).
fn members(file: &File) -> std::io::Result<Vec<Entry>> {
    let len = file.metadata()?.len();
    let mut found = Vec::new();
    let mut at = 0;
    while at + BLOCK <= len {
        let mut header = [0; BLOCK as usize];
        file.read_exact_at(&mut header, at)?;
        let text = |range: std::ops::Range<usize>| {
            let field = header.get(range).unwrap_or_default();
            String::from_utf8_lossy(field.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
        };
        let Ok(bytes) = u64::from_str_radix(text(124..136).trim(), 8) else { break };
        let name = match (&header[257..262], text(345..500)) {
            (b"ustar", prefix) if !prefix.is_empty() => format!("{prefix}/{}", text(0..100)),
            _ => text(0..100),
        };
        let plain = matches!(header[156], 0 | b'0');
        if plain && is_picture(name.rsplit('/').next().unwrap_or_default()) && at + BLOCK + bytes <= len {
            found.push(Entry { name, offset: at + BLOCK, bytes });
        }
        at += BLOCK + bytes.div_ceil(BLOCK) * BLOCK;
    }
    Ok(found)
}
