use std::{io, path::PathBuf};

/// What can go wrong between a picture and its latents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not fill the picture, or it has no pixels.
    #[error("{bytes} bytes are not an RGB picture of {width} x {height} pixels")]
    PictureShape {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Bytes given.
        bytes: usize,
    },

    /// The size asked for cannot be cropped to.
    #[error("cannot crop to {size} pixels; the image size must be 1 to {largest}")]
    CropSize {
        /// Side asked for.
        size: usize,
        /// The largest possible.
        largest: usize,
    },

    /// The operating system refused.
    #[error("cannot {action} {}: {}", path.display(), told(source))]
    Io {
        /// What was tried: `open`, `write`, …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] dit_files::WriteError),

    /// A path that is no data set that can be read.
    #[error("cannot use {} as a data set: {problem}\n  help: {help}", path.display())]
    Source {
        /// What was opened.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        help: &'static str,
    },

    /// An archive or table whose structure is damaged.
    #[error("{} is damaged at byte {offset}: {problem}\n  help: it is incomplete or was changed; fetch it again", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        problem: String,
    },

    /// One record that cannot be read; others can.
    #[error("cannot read {key}: {problem}")]
    Record {
        /// Which.
        key: String,
        /// What is wrong.
        problem: String,
    },

    /// A latent shard could not be read or written as a file of tensors.
    #[error(transparent)]
    Tensors(#[from] dit_weights::Error),

    /// A folder without a usable manifest of latents.
    #[error("{} is not a folder of latents: {problem}\n  help: {help}", path.display())]
    NotLatents {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        help: &'static str,
    },

    /// Shards that are not as the manifest says; every one is listed.
    #[error(
        "{} is damaged:\n  {}\n  help: run the precompute-latents command that made it again; only damaged shards are made anew",
        path.display(),
        problems.join("\n  ")
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// Each file concerned, and what is wrong with it.
        problems: Vec<String>,
    },

    /// A folder that is not finished yet.
    #[error(
        "{} is not finished: {done} of {total} shards are there\n  help: run the precompute-latents command that began it again; it continues",
        path.display()
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// Finished shards.
        done: usize,
        /// Shards in all.
        total: usize,
    },

    /// A folder that was begun with other settings.
    #[error(
        "{} holds latents that were made differently:\n  {}\n  help: repeat those settings to continue it, write to another folder, or delete this one",
        path.display(),
        differences.join("\n  ")
    )]
    DifferentSettings {
        /// The folder.
        path: PathBuf,
        /// Each setting that differs: what it is there, and what was asked for.
        differences: Vec<String>,
    },

    /// Settings of which no latents can be made.
    #[error("no latents can be made so: {problem}\n  help: {help}")]
    Settings {
        /// What is wrong.
        problem: String,
        /// What to do.
        help: &'static str,
    },

    /// Another process writes to the folder.
    #[error("{} is being written by another process\n  help: wait for it, or write to another folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },

    /// Latents that cannot be stored.
    #[error("the latents of {key} hold {value}\n  help: {help}")]
    LatentValue {
        /// Which record.
        key: String,
        /// The first such value.
        value: f32,
        /// What to do.
        help: &'static str,
    },

    /// Batches that cannot be made of the records there are.
    #[error("{problem}")]
    Batches {
        /// What is wrong, and what to do.
        problem: String,
    },

    /// A picture that is to be padded, and is larger than what it is padded to.
    #[error("a picture of {width} x {height} pixels cannot be padded to {size}; the crop adm would scale it")]
    TooLargeToPad {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Side asked for.
        size: usize,
    },
}

/// The message of an error that becomes a part of another one, which says by itself what to do.
pub(crate) fn without_help(error: &impl std::error::Error) -> String {
    let message = error.to_string();
    message.split("\n  help:").next().unwrap_or_default().to_owned()
}

/// What the operating system said, and what to do where that is known.
fn told(source: &io::Error) -> String {
    use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    let help = match source.kind() {
        PermissionDenied => "change its permissions, or choose another place",
        ReadOnlyFilesystem => "it may not be written to; choose another place",
        NotADirectory => "a part of the path is a file; choose another place",
        _ => return source.to_string(),
    };
    format!("{source}\n  help: {help}")
}
