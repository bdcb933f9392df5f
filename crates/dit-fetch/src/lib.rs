//! From a name in the catalogue to a checkpoint that is ready: downloaded, verified, converted.
//!
//! [`Fetcher`] brings the files of `dit_catalog`'s entries into a weights folder. Whatever the server, the network or the
//! user does meanwhile, a file under its final name is whole and has the right hash, and what has arrived is not fetched
//! twice: bytes go to a `.part` file beside a note of which version of the remote file they belong to, are hashed as they pass,
//! and are renamed at the end. `.pt` and `.bin` become safetensors through `dit_weights`, one tensor in memory at a time.
//! `docs/fetch-weights.md` in the repository describes the behaviour in full.
//!
//! # What it never does
//! It prints nothing: an [`Observer`] is told what happens. It trusts no file without a hash, except on the first fetch of one
//! for which none is published; that hash is recorded and demanded from then on. It sends a hub token to the hub's own
//! host only, and shows it nowhere. It executes nothing that it downloads.
//!
//! # How it is cut
//! `http` is one request with its redirects, `offer` what its answer brings; `download` one file from several addresses;
//! `part` what has arrived; `obtain` the choice between the weights folder, the hub's cache and the network; `standing` whether there is
//! anything to do; `install` and `convert` the way from files to a checkpoint; `fetcher` the threads around all that.
//!
//! ```no_run
//! use dit_catalog::Catalog;
//! use dit_fetch::{Cancel, Fetcher, Settings, Silent};
//! use std::path::Path;
//!
//! let manifest = Path::new("weights/manifest.json");
//! let catalog = Catalog::load(manifest)?;
//! let settings = Settings::from_env(Path::new("weights"))?;
//! let fetcher = Fetcher::new(&catalog, manifest, &settings, &Silent, &Cancel::new());
//! fetcher.fetch(&["sd-vae-ft-ema".to_owned()])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod addresses;
mod busy;
mod cancel;
mod convert;
mod digest;
mod disk;
mod download;
mod error;
mod fetcher;
mod http;
mod hub;
mod install;
mod layout;
mod licence;
mod list;
mod observe;
mod obtain;
mod offer;
mod part;
mod proxy;
mod receipt;
mod retry;
mod settings;
mod sniff;
mod standing;
mod trust;
mod url;
mod verify;

pub use cancel::Cancel;
pub use error::{EXIT_DAMAGED, FetchError, WrongHash};
pub use fetcher::{Fetched, Fetcher};
pub use list::{Row, State, human_bytes, list, table};
pub use observe::{Event, Observer, Silent};
pub use retry::RetryPolicy;
pub use settings::{Network, Originals, Settings, Timeouts};
pub use verify::{Checked, Finding};

#[cfg(test)]
mod download_tests;
#[cfg(test)]
mod fetcher_tests;
#[cfg(any(test, feature = "test-server"))]
pub mod test_server;
