//! Downloads that lose no byte: resume, verify, convert the catalogue's checkpoints.
#![deny(missing_docs)]

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
pub use error::{EXIT_DAMAGED, FetchError};
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
