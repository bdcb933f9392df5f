//! Files that appear whole or not at all, and that one process at a time holds.
//!
//! Whatever this toolkit writes, it writes beside its final place, synchronises and renames: a reader never sees half a file, and
//! a failed or interrupted write leaves what was there before. [`ensure_writable`] and [`ensure_folder`] tell before minutes of
//! computing whether the result could be written at all, [`ensure_apart`] whether it would replace its own input;
//! [`remove_unfinished`] clears up after a process that was killed. [`Lock`] keeps a second process away; [`free_bytes`] tells
//! what still fits, and [`mark_as_cache`] that a folder can be made again.
//!
//! It does not read or format anything.
//!
//! ```
//! use std::io::Write;
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("result.json");
//! let mut file = dit_files::AtomicFile::create(&path)?;
//! file.write_all(b"{}")?;
//! assert!(!path.exists());
//! file.commit()?;
//! assert!(path.exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod atomic;
mod cache;
mod error;
mod folder;
mod lock;
mod place;
mod room;
mod unfinished;

pub use atomic::{AtomicFile, is_unfinished, parts_of, sync_folder, write_atomically};
pub use cache::{is_marked_as_cache, mark_as_cache};
pub use error::WriteError;
pub use folder::AtomicFolder;
pub use lock::Lock;
pub use place::{ensure_apart, ensure_folder, ensure_writable};
pub use room::free_bytes;
pub use unfinished::remove_unfinished;
