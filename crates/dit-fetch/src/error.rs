//! What can go wrong, each case apart, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::url::shown;

/// Every failure of this crate. [`FetchError::exit_code`] gives each class its own process exit code.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A name is not in the catalogue, or the catalogue itself is wrong.
    #[error(transparent)]
    Catalog(#[from] dit_catalog::Error),
    /// A setting (variable or flag) has a value that cannot be used.
    #[error("{name} is not usable: {problem}")]
    Setting {
        /// The variable or flag.
        name: &'static str,
        /// What is wrong; never the value itself, which may hold a password.
        problem: String,
    },
    /// The host's name does not resolve: no network, or no DNS.
    #[error(
        "cannot find the address of `{host}`: no network, or no DNS\n  help: check the connection; \
         behind a proxy set HTTPS_PROXY; with a copy elsewhere pass --mirror URL"
    )]
    NoAddress {
        /// The host that did not resolve.
        host: String,
    },
    /// Nobody listens, or the way there is closed.
    #[error(
        "cannot connect to {}: {detail}\n  help: is a firewall or proxy in between? set HTTPS_PROXY, or pass --mirror URL",
        shown(url)
    )]
    Refused {
        /// The address tried.
        url: String,
        /// The operating system's words.
        detail: String,
    },
    /// The proxy did not open the way.
    #[error(
        "the proxy would not connect to {}: {detail}\n  help: check HTTPS_PROXY, its user and password; NO_PROXY lists hosts to reach directly",
        shown(url)
    )]
    Proxy {
        /// The address tried.
        url: String,
        /// The proxy's answer.
        detail: String,
    },
    /// The server's certificate is not trusted, or TLS fails otherwise.
    #[error(
        "no secure connection to {}: {detail}\n  help: if your network has a certificate authority of its own, \
         set SSL_CERT_FILE to its PEM file",
        shown(url)
    )]
    Tls {
        /// The address tried.
        url: String,
        /// The TLS library's words.
        detail: String,
    },
    /// No byte came for too long, each time it was tried.
    #[error(
        "{} sent nothing for {} s\n  help: run the same command again: what arrived is kept and the download goes on from there",
        shown(url),
        after.as_secs_f32()
    )]
    Stalled {
        /// The address tried.
        url: String,
        /// The time limit that passed.
        after: Duration,
    },
    /// The connection broke, each time it was tried.
    #[error(
        "the connection to {} broke: {detail}\n  help: run the same command again: what arrived is kept and the download goes on from there",
        shown(url)
    )]
    ConnectionLost {
        /// The address tried.
        url: String,
        /// How it broke.
        detail: String,
    },
    /// Status 401.
    #[error(
        "{} wants to know who asks (401)\n  help: for a file on the Hugging Face hub set HF_TOKEN to an access token; it is sent to that host only",
        shown(url)
    )]
    Unauthorized {
        /// The address that refused.
        url: String,
    },
    /// Status 403 (or 451).
    #[error(
        "{} may not be fetched (403)\n  help: the token's owner may have to accept the licence on the model's page; other hosts may refuse \
         your country or proxy: pass --mirror URL",
        shown(url)
    )]
    Forbidden {
        /// The address that refused.
        url: String,
    },
    /// Status 404 or 410.
    #[error(
        "{} does not exist (404)\n  help: the file has moved; pass --mirror URL, or correct its `urls` in the manifest",
        shown(url)
    )]
    NotFound {
        /// The address that is not there.
        url: String,
    },
    /// Any other status that is no answer.
    #[error(
        "{} answered with status {status}\n  help: the server is in trouble; try later, or pass --mirror URL",
        shown(url)
    )]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// Too many redirects, or one to where we must not go.
    #[error("{} redirects {problem}\n  help: open the address in a browser to see where it leads", shown(url))]
    Redirect {
        /// The address that redirects.
        url: String,
        /// Where to.
        problem: String,
    },
    /// The remote file changed under the download, and no whole copy was to be had.
    #[error("{} keeps changing while it is fetched\n  help: try again later, or pass --mirror URL", shown(url))]
    Changing {
        /// The address.
        url: String,
    },
    /// A page instead of a checkpoint.
    #[error(
        "{} is not a checkpoint but {what}\n  help: a login page, a captive portal or a proxy's notice answered instead of the file; open the address in a browser",
        shown(url)
    )]
    NotACheckpoint {
        /// The address, or the file.
        url: String,
        /// What it looks like.
        what: String,
    },
    /// The file has another length than the manifest says.
    #[error(
        "{} has {actual} bytes, expected {expected}\n  help: the file was replaced or cut; pass --mirror URL, or correct `bytes` in the manifest if the new file is right",
        shown(url)
    )]
    WrongSize {
        /// The address.
        url: String,
        /// Bytes expected.
        expected: u64,
        /// Bytes offered.
        actual: u64,
    },
    /// The file has the wrong hash.
    #[error(transparent)]
    WrongHash(Box<WrongHash>),
    /// Not enough room.
    #[error(
        "the disk at {} is full: {} free{}\n  help: free some space or pass --dir with a folder on a larger disk; what arrived is kept",
        dir.display(), crate::list::human_bytes(*free),
        needed.map_or_else(String::new, |bytes| format!(", {} needed", crate::list::human_bytes(bytes)))
    )]
    DiskFull {
        /// The folder.
        dir: PathBuf,
        /// Bytes needed, where known.
        needed: Option<u64>,
        /// Bytes free.
        free: u64,
    },
    /// A file is missing and the network may not be used.
    #[error("{file} of `{name}` is neither in {} nor in the hub cache, and --offline was given\n  help: run once without --offline", dir.display())]
    Offline {
        /// The checkpoint.
        name: String,
        /// Its file.
        file: String,
        /// The weights folder.
        dir: PathBuf,
    },
    /// A file that comes with the repository is missing or damaged.
    #[error(
        "{} comes with the repository but is {problem}\n  help: `git checkout -- {}` brings it back",
        path.display(), path.display()
    )]
    Committed {
        /// The file.
        path: PathBuf,
        /// "missing" or "damaged".
        problem: &'static str,
    },
    /// Another fetch works on the same folder.
    #[error("another fetch-weights is at work in {}{}\n  help: wait for it to end, or pass another --dir", dir.display(), who)]
    Busy {
        /// The folder.
        dir: PathBuf,
        /// " (process 123)", where known.
        who: String,
    },
    /// The user stopped it.
    #[error("interrupted\n  help: what arrived is kept; the same command goes on from there")]
    Interrupted,
    /// The file arrived whole but cannot be turned into safetensors.
    #[error(
        "`{name}` cannot be converted: {}\n  help: the file that arrived is kept; `dit-cli inspect` tells more about it",
        source
    )]
    Convert {
        /// The checkpoint.
        name: String,
        /// What the reader found.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "write", "rename", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// No address led to a good file.
    #[error("{file}: none of its {} addresses led to a good file{}", failures.len(), numbered(failures))]
    AllAddresses {
        /// The file.
        file: String,
        /// One failure for each address, in order.
        failures: Vec<FetchError>,
    },
    /// Several files failed.
    #[error("{} files failed{}", failures.len(), numbered(failures))]
    Several {
        /// Each file's failure, in the manifest's order.
        failures: Vec<FetchError>,
    },
}

/// A file with the wrong hash, put aside.
#[derive(Debug, thiserror::Error)]
#[error(
    "wrong sha256: {} is {actual}, expected {expected} ({origin})\n  help: nothing will load it; it is kept as {} for you to look at. {advice}",
    path.display(), bad.display()
)]
pub struct WrongHash {
    /// The file as it should have been.
    pub path: PathBuf,
    /// Where the bad file is now.
    pub bad: PathBuf,
    /// The hash expected, hexadecimal.
    pub expected: String,
    /// The hash found, hexadecimal.
    pub actual: String,
    /// Who says so: the manifest, or the record of the first fetch.
    pub origin: String,
    /// What to do.
    pub advice: &'static str,
}

fn numbered(failures: &[FetchError]) -> String {
    let mut text = String::new();
    for (i, failure) in failures.iter().enumerate() {
        text.push_str(&format!("\n{}. {}", i + 1, failure.to_string().replace('\n', "\n   ")));
    }
    text
}

impl FetchError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let dir = path.parent().unwrap_or(path).to_owned();
                let free = dit_files::free_bytes(&dir).unwrap_or(0);
                FetchError::DiskFull { dir, needed: None, free }
            }
            _ => FetchError::Io { action, path: path.to_owned(), source },
        }
    }

    /// Whether it failed because nothing may be written there.
    pub(crate) fn is_read_only(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        matches!(self, FetchError::Io { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
    }

    /// Whether trying the same address again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            FetchError::NoAddress { .. }
            | FetchError::Refused { .. }
            | FetchError::Stalled { .. }
            | FetchError::ConnectionLost { .. } => true,
            FetchError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    /// Whether the next address has no chance either: the fault is here, or the user wants to stop.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            FetchError::Interrupted | FetchError::DiskFull { .. } | FetchError::Io { .. } | FetchError::Setting { .. }
        )
    }

    /// The process exit code of this failure; `docs/fetch-weights.md` has the table. For several failures it is
    /// that of the gravest: a wrong hash before a page instead of a file, before the first in order.
    pub fn exit_code(&self) -> u8 {
        match self {
            FetchError::Catalog(_) | FetchError::Setting { .. } => 2,
            FetchError::NoAddress { .. } => 10,
            FetchError::Refused { .. } | FetchError::Proxy { .. } => 11,
            FetchError::Tls { .. } => 12,
            FetchError::Stalled { .. } | FetchError::ConnectionLost { .. } => 13,
            FetchError::Unauthorized { .. } => 14,
            FetchError::Forbidden { .. } => 15,
            FetchError::NotFound { .. } => 16,
            FetchError::Status { .. } | FetchError::Redirect { .. } | FetchError::Changing { .. } => 17,
            FetchError::WrongHash(_) | FetchError::WrongSize { .. } => 20,
            FetchError::NotACheckpoint { .. } | FetchError::Convert { .. } => 21,
            FetchError::DiskFull { .. } => 22,
            FetchError::Committed { .. } => 23,
            FetchError::Busy { .. } => 25,
            FetchError::Offline { .. } => 26,
            FetchError::Io { .. } => 27,
            FetchError::Interrupted => 130,
            FetchError::AllAddresses { failures, .. } | FetchError::Several { failures } => {
                let codes: Vec<u8> = failures.iter().map(FetchError::exit_code).collect();
                [130, 20, 21, 22]
                    .into_iter()
                    .find(|grave| codes.contains(grave))
                    .or_else(|| codes.first().copied())
                    .unwrap_or(1)
            }
        }
    }
}

/// Exit code when `--verify` finds a damaged file.
pub const EXIT_DAMAGED: u8 = 24;
