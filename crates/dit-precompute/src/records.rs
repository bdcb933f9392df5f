use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dit_data::{DecodeError, Limits, Rgb, Source};

/// Pictures with a name and a class, in an order that never changes.
///
/// Many threads ask at once.
pub trait Records: Sync {
    /// The name of a record.
    fn key(&self, index: u64) -> String;

    /// Its class.
    fn label(&self, index: u64) -> i64;

    /// Its picture, of any size. It is dropped once it is cropped.
    ///
    /// # Errors
    /// [`PictureError::Bad`] where this picture is to be skipped; [`PictureError::Source`] where the run is to end.
    fn picture(&self, index: u64) -> Result<Picture<'_>, PictureError>;
}

/// A decoded picture and, where it is a large one, the turn that keeps others from being decoded at the same time.
#[derive(Debug)]
pub struct Picture<'a> {
    pixels: Rgb,
    turn: Option<MutexGuard<'a, ()>>,
}

impl Picture<'_> {
    /// What `work` makes of the pixels, which are gone before the turn ends.
    pub(crate) fn map<T>(self, work: impl FnOnce(Rgb) -> T) -> T {
        let Self { pixels, turn } = self;
        let made = work(pixels);
        drop(turn);
        made
    }
}

impl From<Rgb> for Picture<'_> {
    fn from(pixels: Rgb) -> Self {
        Self { pixels, turn: None }
    }
}

/// Why there is no picture.
#[derive(Debug)]
pub enum PictureError {
    /// It is damaged, for good: whoever reads it again finds the same.
    Bad(String),
    /// The source failed. Another time it may not, so nothing is recorded.
    Source(dit_data::Error),
}

/// Pictures of more pixels than this, which take 100 MB and more, are decoded and cropped one at a time.
const MODEST: Limits = Limits { max_pixels: 1 << 25 };

/// The pictures of a source's files.
#[derive(Debug)]
pub struct SourceRecords<'a> {
    source: &'a Source,
    limits: Limits,
    /// Held while a large picture is decoded and cropped, so that memory does not grow with the number of threads.
    large: Mutex<()>,
}

impl<'a> SourceRecords<'a> {
    /// Those of `source`, none with more pixels than Pillow takes for a decompression bomb.
    pub fn new(source: &'a Source) -> Self {
        Self { source, limits: Limits::default(), large: Mutex::new(()) }
    }
}

impl Records for SourceRecords<'_> {
    fn key(&self, index: u64) -> String {
        self.source.record(index as usize).key.to_owned()
    }

    fn label(&self, index: u64) -> i64 {
        i64::from(self.source.record(index as usize).label)
    }

    fn picture(&self, index: u64) -> Result<Picture<'_>, PictureError> {
        let encoded = self.source.read(index as usize).map_err(of_source)?;
        let decoded = match encoded.decode(&MODEST) {
            Err(DecodeError::TooLarge { .. }) => {
                let turn = self.large.lock().unwrap_or_else(PoisonError::into_inner);
                encoded.decode(&self.limits).map(|pixels| Picture { pixels, turn: Some(turn) })
            }
            other => other.map(Picture::from),
        };
        decoded.map_err(|error| PictureError::Bad(error.to_string()))
    }
}

/// A picture that is not there or may not be read is as bad as a damaged one; a disk that fails may work again.
fn of_source(error: dit_data::Error) -> PictureError {
    use io::ErrorKind::{InvalidData, IsADirectory, NotFound, Other, PermissionDenied, UnexpectedEof};
    match &error {
        dit_data::Error::Io { source, .. } => match source.kind() {
            InvalidData | IsADirectory | NotFound | Other | PermissionDenied | UnexpectedEof => {
                PictureError::Bad(source.to_string())
            }
            _ => PictureError::Source(error),
        },
        _ => PictureError::Bad(error.to_string()),
    }
}
