//! What a fetch tells whoever watches. This crate prints nothing itself.

use std::path::Path;
use std::time::Duration;

/// Something that happened. `file` is `NAME/FILE`, the same for all events of one file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A checkpoint under this licence is fetched for the first time.
    Licence {
        /// Checkpoints concerned.
        names: &'a [String],
        /// SPDX-like identifier, as in the manifest.
        licence: &'a str,
        /// What it means, a sentence or two.
        notice: &'a str,
    },
    /// Bytes that are there already are hashed: `total` of them.
    Checking {
        /// The file.
        file: &'a str,
        /// Bytes to hash.
        total: u64,
    },
    /// A transfer begins.
    Downloading {
        /// The file.
        file: &'a str,
        /// Where from, without credentials.
        from: &'a str,
        /// Bytes that are there already.
        start: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// Bytes were hashed or arrived.
    Advanced {
        /// The file.
        file: &'a str,
        /// How many.
        bytes: u64,
    },
    /// The transfer of this file starts from its first byte again.
    Restarted {
        /// The file.
        file: &'a str,
        /// Why.
        why: &'a str,
    },
    /// The attempt failed; there will be another.
    Retrying {
        /// The file.
        file: &'a str,
        /// What went wrong.
        error: &'a str,
        /// After this time.
        after: Duration,
        /// Number of the coming attempt.
        attempt: u32,
        /// How many there will be at most.
        of: u32,
    },
    /// This address failed for good; the next one is tried.
    NextAddress {
        /// The file.
        file: &'a str,
        /// What went wrong with the last one.
        error: &'a str,
    },
    /// The file is whole and its hash is right.
    Verified {
        /// The file.
        file: &'a str,
    },
    /// The file failed for good.
    Failed {
        /// The file.
        file: &'a str,
    },
    /// A checkpoint is being turned into safetensors.
    Converting {
        /// The checkpoint; also the `file` of the [`Event::Advanced`] that follow.
        name: &'a str,
        /// Bytes of weights to write.
        total: u64,
    },
    /// A checkpoint is ready.
    Installed {
        /// The checkpoint.
        name: &'a str,
        /// Its safetensors file, or folder.
        path: &'a Path,
    },
    /// A remark.
    Note {
        /// The text.
        text: &'a str,
    },
}

/// Receives events, from several threads at once.
pub trait Observer: Sync {
    /// Called when something happened. Should return quickly: the download waits.
    fn observe(&self, event: &Event<'_>);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Event<'_>) {}
}
