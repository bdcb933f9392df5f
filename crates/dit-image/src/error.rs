use std::io;
use std::path::{Path, PathBuf};

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a picture or its file. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value to be quantised is not a number.
    #[error(
        "the picture holds NaN (channel {channel}, row {row}, column {column}): \
         the weights or the precision are broken; nothing was written"
    )]
    NotANumber {
        /// 0 red, 1 green, 2 blue.
        channel: usize,
        /// Counted from the top.
        row: usize,
        /// Counted from the left.
        column: usize,
    },
    /// The number of values is not 3 × height × width.
    #[error("a {width}×{height} RGB picture has {expected} values, not {found}")]
    Length {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// 3 × height × width.
        expected: u64,
        /// What was given.
        found: usize,
    },
    /// A side is zero, or beyond what PNG can hold (2³¹ − 1).
    #[error("a picture cannot be {width}×{height}: each side is 1 to 2147483647 pixels")]
    Size {
        /// Pixels in a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// A sheet of no pictures.
    #[error("there are no pictures to lay out")]
    NoPictures,
    /// Pictures that must agree in size do not.
    #[error("picture {index} is {}×{}, but the others are {}×{}: all must have one size", found.0, found.1, expected.0, expected.1)]
    MixedSizes {
        /// Which picture, counted from 0.
        index: u64,
        /// Its width and height.
        found: (u32, u32),
        /// The width and height of those before it.
        expected: (u32, u32),
    },
    /// More pictures than the archive was announced to hold.
    #[error("{}: {announced} pictures were announced, and one more arrived", path.display())]
    TooManyPictures {
        /// The archive.
        path: PathBuf,
        /// How many it was created for.
        announced: u64,
    },
    /// Fewer pictures than the archive was announced to hold.
    #[error("{}: {announced} pictures were announced, only {written} arrived; nothing was kept", path.display())]
    TooFewPictures {
        /// The archive.
        path: PathBuf,
        /// How many it was created for.
        announced: u64,
        /// How many were pushed.
        written: u64,
    },
    /// An archive beyond 2⁶⁴ bytes.
    #[error("{count} pictures of {width}×{height} do not fit any file")]
    ArchiveTooLarge {
        /// How many pictures.
        count: u64,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Text that a PNG cannot carry.
    #[error("the PNG's {keyword} text {why}")]
    Caption {
        /// Which text.
        keyword: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The encoder refused the picture.
    #[error("{}: cannot be encoded as PNG", path.display())]
    Encode {
        /// The file that was to be written.
        path: PathBuf,
        /// The encoder's reason.
        source: png::EncodingError,
    },

    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] dit_files::WriteError),

    /// The file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file in question.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file to be read is not there.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// The file is not a PNG.
    #[error("{}: not a PNG file", path.display())]
    NotAPng {
        /// The file read.
        path: PathBuf,
    },
    /// A whole PNG without a recipe.
    #[error("{}: this PNG carries no recipe; only pictures written by this program do, and many editors drop it", path.display())]
    NoRecipe {
        /// The file read.
        path: PathBuf,
    },
    /// The file ends before its end.
    #[error("{}: the PNG is cut short, and no recipe comes before the cut; copy it again", path.display())]
    Truncated {
        /// The file read.
        path: PathBuf,
    },
    /// The file breaks the PNG rules before a recipe is found.
    #[error("{}: the PNG is damaged: {why}", path.display())]
    Damaged {
        /// The file read.
        path: PathBuf,
        /// Which rule.
        why: String,
    },
    /// A recipe beyond [`RECIPE_LIMIT`](crate::RECIPE_LIMIT).
    #[error("{}: its recipe is longer than {limit} bytes, which no recipe of this program is", path.display())]
    RecipeTooLong {
        /// The file read.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Error {
    /// A failed write of `path`, by its cause.
    pub(crate) fn writing(path: &Path, source: io::Error) -> Self {
        Self::Write(dit_files::WriteError::new(path, source))
    }

    /// A failed read of `path`, by its cause.
    pub(crate) fn reading(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::IsADirectory => Self::NotAPng { path },
            _ => Self::Read { path, source },
        }
    }
}
