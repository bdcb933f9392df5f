use dit_data::Rgb;

/// Pictures with a name and a class, in an order that never changes.
///
/// Many threads ask at once.
pub trait Records: Sync {
    /// The name of a record.
    fn key(&self, index: u64) -> String;

    /// Its class.
    fn label(&self, index: u64) -> i64;

    /// Its picture, of any size.
    ///
    /// # Errors
    /// [`PictureError::Bad`] where this picture is to be skipped; [`PictureError::Source`] where the run is to end.
    fn picture(&self, index: u64) -> Result<Rgb, PictureError>;
}

/// Why there is no picture.
#[derive(Debug)]
pub enum PictureError {
    /// It is damaged, for good: whoever reads it again finds the same.
    Bad(String),
    /// The source failed. Another time it may not, so nothing is recorded.
    Source(dit_data::Error),
}
