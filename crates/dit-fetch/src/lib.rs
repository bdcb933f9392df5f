//! Downloads that lose no byte: resume, verify, convert the catalogue's checkpoints.
#![deny(missing_docs)]

mod cancel;
mod digest;
mod disk;
mod download;
mod error;
mod http;
mod hub;
mod list;
mod observe;
mod part;
mod proxy;
mod retry;
mod settings;
mod sniff;
mod trust;
mod url;

pub use cancel::Cancel;
pub use error::{EXIT_DAMAGED, FetchError};
pub use observe::{Event, Observer, Silent};
pub use retry::RetryPolicy;
pub use settings::{Network, Originals, Settings, Timeouts};

#[cfg(test)]
mod download_tests;
#[cfg(test)]
#[path = "../tests/server/mod.rs"]
mod server;
