use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

use dit_files::AtomicFile;

use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::recipe::{RECIPE_KEYWORD, RECIPE_LIMIT};

/// The text that a PNG carries besides its pixels: nothing by default.
///
/// Written as uncompressed international text chunks (`iTXt`, UTF-8) ahead of the pixels, where `exiftool`,
/// `identify -verbose` or Pillow's `Image.text` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caption {
    software: Option<String>,
    description: Option<String>,
    recipe: Option<String>,
}

impl Caption {
    /// Which program made the picture (keyword `Software`).
    #[must_use]
    pub fn with_software(mut self, software: impl Into<String>) -> Self {
        self.software = Some(software.into());
        self
    }

    /// A sentence for people (keyword `Description`).
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// All that is needed to make the picture again, as JSON by convention (keyword [`RECIPE_KEYWORD`]).
    #[must_use]
    pub fn with_recipe(mut self, recipe: impl Into<String>) -> Self {
        self.recipe = Some(recipe.into());
        self
    }

    /// Keyword and text, in the order in which they are written.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("Software", &self.software), ("Description", &self.description), (RECIPE_KEYWORD, &self.recipe)]
            .into_iter()
            .filter_map(|(keyword, text)| Some((keyword, text.as_deref()?)))
    }

    fn check(&self) -> Result<()> {
        for (keyword, text) in self.texts() {
            if text.contains('\0') {
                let why = "contains a NUL character, which PNG text cannot".into();
                return Err(Error::Caption { keyword, why });
            }
            if text.len() > RECIPE_LIMIT {
                let why = format!("is {} bytes long; the limit is {RECIPE_LIMIT}", text.len());
                return Err(Error::Caption { keyword, why });
            }
        }
        Ok(())
    }
}

/// Writes an 8-bit RGB PNG, whole or not at all.
///
/// The bytes are a function of the picture and the caption: no time stamp, fixed compression settings.
///
/// # Errors
/// [`Error::Caption`] for text that PNG cannot hold or [`read_recipe`](crate::read_recipe) would not accept; the file
/// errors of [`ensure_writable`](dit_files::ensure_writable).
pub fn write_png(path: impl AsRef<Path>, picture: &Picture, caption: &Caption) -> Result<()> {
    let path = path.as_ref();
    caption.check()?;
    let mut file = AtomicFile::create(path)?;
    let bytes = encode(picture, caption).map_err(|source| Error::Encode { path: path.to_path_buf(), source })?;
    file.write_all(&bytes).and_then(|()| file.commit()).map_err(|source| Error::writing(path, source))
}

/// Reads an 8-bit RGB PNG, such as [`write_png`] writes; its checksums are verified.
///
/// # Errors
/// [`Error::Missing`], [`Error::Read`]; [`Error::Damaged`] for what is no whole PNG of that form.
pub fn read_png(path: impl AsRef<Path>) -> Result<Picture> {
    read(path.as_ref())
}

fn read(path: &Path) -> Result<Picture> {
    let file = File::open(path).map_err(|source| Error::reading(path, source))?;
    let damaged = |why: String| Error::Damaged { path: path.to_path_buf(), why };
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().map_err(|error| damaged(error.to_string()))?;
    if reader.output_color_type() != (png::ColorType::Rgb, png::BitDepth::Eight) {
        return Err(damaged("it is not 8-bit RGB".to_owned()));
    }
    let length = reader.output_buffer_size().ok_or_else(|| damaged("it is too large".to_owned()))?;
    let mut rgb = vec![0; length];
    reader.next_frame(&mut rgb).map_err(|error| damaged(error.to_string()))?;
    reader.finish().map_err(|error| damaged(error.to_string()))?;
    Picture::from_rgb(rgb, reader.info().width, reader.info().height)
}

fn encode(picture: &Picture, caption: &Caption) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // Named, not left to the crate's defaults: equal pictures must stay equal files.
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::Adaptive);
    for (keyword, text) in caption.texts() {
        encoder.add_itxt_chunk(keyword.into(), text.into())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.rgb())?;
    writer.finish()?;
    Ok(bytes)
}
