use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// The keyword of the PNG text chunk that holds the recipe.
pub const RECIPE_KEYWORD: &str = "dit.recipe";
/// The longest recipe, in bytes, written or read: a megabyte.
pub const RECIPE_LIMIT: usize = 1 << 20;

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// The longest chunk the format allows.
const LONGEST_CHUNK: u32 = i32::MAX as u32;
/// Keyword, flags and language of a text chunk, besides its text.
const TEXT_OVERHEAD: usize = 4096;

/// Reads the recipe out of a PNG, from whichever text chunk (`iTXt`, `tEXt`, `zTXt`) carries it under [`RECIPE_KEYWORD`].
///
/// The pixels are skipped, not decoded. At most about [`RECIPE_LIMIT`] bytes are ever held, whatever the file claims and
/// however well its text is compressed. The checksum of the recipe's chunk is verified.
///
/// # Errors
/// [`Error::Missing`], [`Error::Read`]; [`Error::NotAPng`]; [`Error::NoRecipe`];
/// [`Error::Truncated`]; [`Error::Damaged`]; [`Error::RecipeTooLong`].
pub fn read_recipe(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| Error::reading(path, source))?;
    Chunks::open(path, BufReader::new(file))?.find_recipe()
}

/// A walk over the chunks of a PNG (length, type, data, checksum), standing at the start of one.
struct Chunks<'a, R> {
    path: &'a Path,
    input: R,
}

impl<'a, R: BufRead> Chunks<'a, R> {
    fn open(path: &'a Path, mut input: R) -> Result<Self> {
        let mut head = Vec::new();
        (&mut input)
            .take(SIGNATURE.len() as u64)
            .read_to_end(&mut head)
            .map_err(|source| Error::reading(path, source))?;
        if head != SIGNATURE {
            return Err(Error::NotAPng { path: path.to_path_buf() });
        }
        Ok(Self { path, input })
    }

    fn find_recipe(mut self) -> Result<String> {
        loop {
            let [a, b, c, d, kind @ ..] = self.array::<8>()?;
            let length = u32::from_be_bytes([a, b, c, d]);
            if length > LONGEST_CHUNK {
                return Err(self.damaged("a chunk claims more than 2 GiB"));
            }
            match &kind {
                b"IEND" => {
                    return Err(Error::NoRecipe { path: self.path.to_path_buf() });
                }
                b"tEXt" | b"zTXt" | b"iTXt" => {
                    if let Some(recipe) = self.text_chunk(kind, length)? {
                        return Ok(recipe);
                    }
                }
                _ => self.skip(u64::from(length) + 4)?,
            }
        }
    }

    /// Reads a text chunk; `None` if it is not the recipe.
    fn text_chunk(&mut self, kind: [u8; 4], length: u32) -> Result<Option<String>> {
        let mut key = vec![0; (length as usize).min(RECIPE_KEYWORD.len() + 1)];
        self.fill(&mut key)?;
        if key.strip_suffix(&[0]) != Some(RECIPE_KEYWORD.as_bytes()) {
            self.skip(u64::from(length) - key.len() as u64 + 4)?;
            return Ok(None);
        }
        let rest = length as usize - key.len();
        if rest > RECIPE_LIMIT + TEXT_OVERHEAD {
            return Err(self.too_long());
        }
        let mut data = vec![0; rest];
        self.fill(&mut data)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&kind);
        checksum.update(&key);
        checksum.update(&data);
        if checksum.finalize() != u32::from_be_bytes(self.array()?) {
            return Err(self.damaged("the recipe's checksum is wrong"));
        }
        self.text(kind, &data).map(Some)
    }

    /// The text of a chunk whose keyword and separator are already taken off.
    fn text(&self, kind: [u8; 4], data: &[u8]) -> Result<String> {
        let malformed = || self.damaged("the recipe's chunk is malformed");
        let bytes = match (&kind, data) {
            (b"tEXt", text) => return self.bounded(latin1(text)),
            (b"zTXt", [0, packed @ ..]) => return self.bounded(latin1(&self.inflate(packed)?)),
            // Compression flag and method, then language and translated keyword, each ended by a zero.
            (b"iTXt", [flag @ (0 | 1), 0, rest @ ..]) => {
                let mut parts = rest.splitn(3, |&byte| byte == 0);
                let text = parts.nth(2).ok_or_else(malformed)?;
                if *flag == 1 { self.inflate(text)? } else { text.to_vec() }
            }
            _ => return Err(malformed()),
        };
        self.bounded(String::from_utf8(bytes).map_err(|_| self.damaged("the recipe is not UTF-8"))?)
    }

    fn inflate(&self, packed: &[u8]) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        flate2::bufread::ZlibDecoder::new(packed)
            .take(RECIPE_LIMIT as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|_| self.damaged("the recipe does not decompress"))?;
        Ok(text)
    }

    fn bounded(&self, text: String) -> Result<String> {
        if text.len() > RECIPE_LIMIT {
            return Err(self.too_long());
        }
        Ok(text)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.input.read_exact(bytes).map_err(|source| self.cut(source))
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let mut passed = (&mut self.input).take(count);
        match io::copy(&mut passed, &mut io::sink()) {
            Ok(found) if found < count => Err(self.cut(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(source) => Err(self.cut(source)),
        }
    }

    fn cut(&self, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return Error::Truncated { path: self.path.to_path_buf() };
        }
        Error::reading(self.path, source)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Damaged { path: self.path.to_path_buf(), why: why.into() }
    }

    fn too_long(&self) -> Error {
        Error::RecipeTooLong { path: self.path.to_path_buf(), limit: RECIPE_LIMIT }
    }
}

/// `tEXt` and `zTXt` hold ISO 8859-1, whose bytes are the first 256 code points.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
