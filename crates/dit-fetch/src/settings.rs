//! How to fetch, settled before anything starts.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::FetchError;
use crate::hub::Hub;
use crate::proxy::Proxies;
use crate::retry::RetryPolicy;
use crate::url::Origin;

/// May the network be used?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Yes.
    Online,
    /// Only what is on this machine: the weights folder and the hub's cache.
    Offline,
}

/// What becomes of a `.pt` or `.bin` file once it is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Originals {
    /// Deleted.
    Delete,
    /// Kept beside the result.
    Keep,
}

/// Time limits of a connection.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For name look-up, connection and TLS together.
    pub connect: Duration,
    /// The longest silence from a server.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect: Duration::from_secs(30), read: Duration::from_secs(60) }
    }
}

/// Everything about a fetch but what to fetch.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where checkpoints are put.
    pub dir: PathBuf,
    /// Files transferred at a time.
    pub jobs: NonZeroUsize,
    /// May the network be used?
    pub network: Network,
    /// Are originals kept?
    pub originals: Originals,
    /// Time limits.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retry: RetryPolicy,
    pub(crate) mirror: Option<String>,
    pub(crate) hub: Hub,
    pub(crate) proxies: Proxies,
}

impl Settings {
    /// Defaults for the folder `dir`, with the hub's and the proxies' variables read from this process's environment.
    ///
    /// # Errors
    /// [`FetchError::Setting`] if a variable holds what cannot be used.
    pub fn from_env(dir: &Path) -> Result<Self, FetchError> {
        Self::from_vars(dir, &|name| std::env::var(name).ok())
    }

    /// As [`Settings::from_env`], with variables from a function.
    ///
    /// # Errors
    /// The same.
    pub fn from_vars(dir: &Path, var: &dyn Fn(&str) -> Option<String>) -> Result<Self, FetchError> {
        Ok(Settings {
            dir: dir.to_owned(),
            jobs: NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN),
            network: Network::Online,
            originals: Originals::Delete,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            mirror: None,
            hub: Hub::from_vars(var)?,
            proxies: Proxies::from_vars(var)?,
        })
    }

    /// Asks `url` before all other addresses: `URL/NAME/FILE`, then the path that the file has at its own host, then
    /// `URL/FILE` where only one checkpoint has a file of that name.
    ///
    /// # Errors
    /// [`FetchError::Setting`] unless it is an http or https address.
    pub fn set_mirror(&mut self, url: &str) -> Result<(), FetchError> {
        if Origin::of(url).is_none() || url.contains(['?', '#']) {
            return Err(FetchError::Setting {
                name: "--mirror",
                problem: "it must read http[s]://host[:port][/folder]".to_owned(),
            });
        }
        self.mirror = Some(url.trim_end_matches('/').to_owned());
        Ok(())
    }
}
