//! One file from one of several addresses: resumed, checked, whole or not there.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::header;

use crate::cancel::Cancel;
use crate::digest::CHUNK;
use crate::error::{FetchError, WrongHash};
use crate::http::{Client, From, Reply};
use crate::observe::{Event, Observer};
use crate::offer::{Kind, Offer};
use crate::part::{Origin, Part, Proof, with_suffix};
use crate::retry::{Retry, RetryPolicy, jitter};
use crate::sniff;
use crate::url::{Origin as Host, shown};

/// How often one address may make a download start from its first byte again.
const MOST_RESTARTS: u32 = 3;
/// Who says what the hash is, when it is a hub file's for which the manifest has none.
const HUB_SAYS: &str = "says the hub, in the header X-Linked-Etag";

/// The hash that a file must have, and who says so.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Lower-case hexadecimal.
    pub(crate) sha256: String,
    pub(crate) origin: String,
}

/// A file to get.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `NAME/FILE`, for people.
    pub(crate) label: String,
    /// Where the whole file goes.
    pub(crate) path: PathBuf,
    /// Addresses in order of preference.
    pub(crate) urls: Vec<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) expected: Option<Expected>,
}

impl Target {
    /// Where a file with the wrong hash is put.
    pub(crate) fn bad_path(&self) -> PathBuf {
        with_suffix(&self.path, ".bad")
    }

    /// The error for a file with the wrong hash, which is at [`Target::bad_path`] by now.
    pub(crate) fn wrong_hash(&self, expected: &Expected, actual: String) -> FetchError {
        let advice = match expected.origin.as_str() {
            crate::trust::ORIGIN => {
                "If you know that the file was replaced and trust the new one, delete its entry in that record."
            }
            HUB_SAYS => "Try again or pass --mirror URL.",
            _ => "Try again or pass --mirror URL; if a new version was published, correct `sha256` in the manifest.",
        };
        FetchError::WrongHash(Box::new(WrongHash {
            path: self.path.clone(),
            bad: self.bad_path(),
            expected: expected.sha256.clone(),
            actual,
            origin: expected.origin.clone(),
            advice,
        }))
    }
}

/// A file that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) url: String,
}

/// Downloads files one at a time; several may share a client.
pub(crate) struct Downloader<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) retry: &'a RetryPolicy,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) cancel: &'a Cancel,
}

/// How an attempt ended, if not with an error that ends the address.
enum Attempt {
    /// All bytes are there.
    Whole,
    /// The part was of another file, or cannot be continued here; it was thrown away.
    Restart(&'static str),
}

impl Downloader<'_> {
    /// Brings `target.path` into being: whole, with the expected hash.
    pub(crate) fn fetch(&self, target: &Target) -> Result<Arrived, FetchError> {
        let mut part = self.open(target)?;
        let mut failures = Vec::new();
        let mut unreachable = Vec::new();
        for (i, url) in target.urls.iter().enumerate() {
            let host = Host::of(url);
            if unreachable.contains(&host) {
                continue;
            }
            match self.try_address(target, url, part) {
                Ok(arrived) => return Ok(arrived),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    if i + 1 < target.urls.len() {
                        self.observer.observe(&Event::NextAddress { file: &target.label, error: &error.to_string() });
                    }
                    if matches!(
                        error,
                        FetchError::NoAddress { .. } | FetchError::Refused { .. } | FetchError::Tls { .. }
                    ) {
                        unreachable.push(host);
                    }
                    failures.push(error);
                    part = self.open(target)?;
                }
            }
        }
        if part.len() == 0 {
            part.discard()?;
        }
        match failures.len() {
            1 => Err(failures.remove(0)),
            _ => Err(FetchError::AllAddresses { file: target.label.clone(), failures }),
        }
    }

    fn open(&self, target: &Target) -> Result<Part, FetchError> {
        let label = target.label.as_str();
        let there = std::fs::metadata(with_suffix(&target.path, ".part")).map_or(0, |m| m.len());
        if there > 0 {
            self.observer.observe(&Event::Checking { file: label, total: there });
        }
        let proof = if target.expected.is_some() { Proof::Hash } else { Proof::FLUSH };
        let passed = |bytes| self.observer.observe(&Event::Advanced { file: label, bytes });
        Part::open(&target.path, proof, self.cancel, passed)
    }

    fn try_address(&self, target: &Target, url: &str, mut part: Part) -> Result<Arrived, FetchError> {
        // Bytes from an earlier run or an interrupted transfer may be to blame for a wrong hash.
        let mut pieced = part.len() > 0;
        loop {
            pieced |= self.complete(target, url, &mut part)?;
            let actual = part.sha256();
            match target.expected.clone().or_else(|| named_by_hub(&part)) {
                Some(expected) if expected.sha256 != actual => {
                    if pieced {
                        self.restarted(target, "the pieces do not fit together: wrong sha256");
                        part.restart()?;
                        pieced = false;
                        continue;
                    }
                    part.quarantine(&target.bad_path())?;
                    return Err(target.wrong_hash(&expected, actual));
                }
                _ => {
                    let bytes = part.len();
                    part.promote(&target.path)?;
                    self.observer.observe(&Event::Verified { file: &target.label });
                    return Ok(Arrived { bytes, sha256: actual, url: shown(url) });
                }
            }
        }
    }

    fn restarted(&self, target: &Target, why: &str) {
        self.observer.observe(&Event::Restarted { file: &target.label, why });
    }

    /// Tries until all bytes are there. True if they came in more than one transfer.
    fn complete(&self, target: &Target, url: &str, part: &mut Part) -> Result<bool, FetchError> {
        let mut retry = Retry::new(self.retry);
        let mut restarts = 0;
        let mut transfers = 0;
        loop {
            let before = part.len();
            transfers += 1;
            let error = match self.attempt(target, url, part) {
                Ok(Attempt::Whole) => return Ok(transfers > 1),
                Ok(Attempt::Restart(why)) => {
                    restarts += 1;
                    if restarts > MOST_RESTARTS {
                        return Err(FetchError::Changing { url: shown(url) });
                    }
                    self.restarted(target, why);
                    part.restart()?;
                    continue;
                }
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(error);
            }
            let asked = match &error {
                FetchError::Status { retry_after, .. } => *retry_after,
                _ => None,
            };
            let gained = part.len().saturating_sub(before);
            let Some(after) = retry.after_failure(gained, asked, jitter()) else { return Err(error) };
            self.wait(target, &error, after, retry.attempt())?;
        }
    }

    fn wait(
        &self,
        target: &Target,
        error: &FetchError,
        after: Duration,
        (attempt, of): (u32, u32),
    ) -> Result<(), FetchError> {
        let text = error.to_string();
        let error = text.lines().next().unwrap_or_default();
        self.observer.observe(&Event::Retrying { file: &target.label, error, after, attempt, of });
        self.cancel.sleep(after)
    }

    fn attempt(&self, target: &Target, url: &str, part: &mut Part) -> Result<Attempt, FetchError> {
        if let Some(total) = target.bytes {
            if part.len() == total && (target.expected.is_some() || came_from(part, url)) {
                return Ok(Attempt::Whole);
            }
            if part.len() > total {
                return Ok(Attempt::Restart("more bytes are there than the file has"));
            }
        }
        // Without a hash to settle it, only the same address may continue what it began.
        if part.len() > 0
            && target.expected.is_none()
            && !(came_from(part, url) && part.origin().is_some_and(|o| o.validator().is_some() || o.total.is_some()))
        {
            return Ok(Attempt::Restart("it is not known which file the part belongs to"));
        }
        let from = (part.len() > 0).then(|| From {
            start: part.len(),
            if_range: part.origin().filter(|o| o.url == shown(url)).and_then(Origin::validator),
        });
        let reply = self.client.get(url, from.as_ref())?;
        let encoding = reply.header(header::CONTENT_ENCODING).unwrap_or("identity");
        if !encoding.eq_ignore_ascii_case("identity") {
            let what = format!("a copy in the encoding `{encoding}`, which was not asked for");
            return Err(FetchError::NotACheckpoint { url: shown(url), what });
        }
        let offer = Offer::read(url, &reply, part.len())?;
        match offer.kind {
            Kind::Nothing if part.len() == 0 => {
                return Err(FetchError::Status { url: shown(url), status: 416, retry_after: None });
            }
            Kind::Nothing => {
                let total = offer.origin.total.or(part.origin().and_then(|o| o.total));
                let complete =
                    part.len() > 0 && total == Some(part.len()) && target.bytes.is_none_or(|b| b == part.len());
                return Ok(if complete {
                    Attempt::Whole
                } else {
                    Attempt::Restart("the server refuses to go on from there")
                });
            }
            Kind::Elsewhere => return Ok(Attempt::Restart("the server sent another part than was asked for")),
            Kind::Rest => {
                self.check_size(target, url, &offer)?;
                if part.origin().is_some_and(|known| known.contradicts(&offer.origin)) {
                    return Ok(Attempt::Restart("the remote file changed"));
                }
            }
            Kind::Everything => {}
        }
        let received = self.receive(target, url, part, reply, offer);
        if received.is_err()
            && let Err(error) = part.flush()
        {
            // The transfer's own failure counts; what was not flushed will be fetched again.
            tracing::warn!("{error}");
        }
        received
    }

    fn check_size(&self, target: &Target, url: &str, offer: &Offer) -> Result<(), FetchError> {
        match (target.bytes, offer.origin.total) {
            (Some(expected), Some(actual)) if expected != actual => {
                Err(FetchError::WrongSize { url: shown(url), expected, actual })
            }
            _ => Ok(()),
        }
    }

    fn receive(
        &self,
        target: &Target,
        url: &str,
        part: &mut Part,
        mut reply: Reply,
        offer: Offer,
    ) -> Result<Attempt, FetchError> {
        let file = target.label.as_str();
        let content_type = reply.header(header::CONTENT_TYPE).map(str::to_owned);
        let mut reader = reply.body.as_reader();
        let mut buffer = vec![0; CHUNK];
        let mut filled = 0;
        if matches!(offer.kind, Kind::Everything) {
            // Look at the beginning before anything of it is kept, and before what is there is given up for it.
            while filled < sniff::HEAD {
                match self.read(url, &mut reader, &mut buffer[filled..])? {
                    0 => break,
                    n => filled += n,
                }
            }
            if let Some(what) = sniff::not_a_checkpoint(&buffer[..filled.min(sniff::HEAD)], content_type.as_deref()) {
                return Err(FetchError::NotACheckpoint { url: shown(url), what: what.to_owned() });
            }
            self.check_size(target, url, &offer)?;
            if part.len() > 0 {
                let changed = part.origin().is_some_and(|known| known.contradicts(&offer.origin));
                let why = if changed { "the remote file changed" } else { "the server cannot continue a download" };
                self.restarted(target, why);
                part.restart()?;
            }
        }
        let total = offer.origin.total.or(target.bytes);
        let dir = target.path.parent().unwrap_or(Path::new("."));
        crate::disk::require(dir, total.map_or(0, |t| t.saturating_sub(part.len())))?;
        let named_before = part.origin().and_then(|known| known.sha256.clone());
        part.set_origin(Origin { sha256: offer.origin.sha256.clone().or(named_before), ..offer.origin })?;
        self.observer.observe(&Event::Downloading { file, from: &shown(url), start: part.len(), total });
        loop {
            if filled > 0 {
                part.write(&buffer[..filled])?;
                self.observer.observe(&Event::Advanced { file, bytes: filled as u64 });
                if let Some(expected) = target.bytes
                    && part.len() > expected
                {
                    let actual = part.len();
                    part.restart()?;
                    return Err(FetchError::WrongSize { url: shown(url), expected, actual });
                }
                if total.is_some_and(|total| part.len() > total) {
                    return Ok(Attempt::Restart("the server sent more than it announced"));
                }
            }
            filled = self.read(url, &mut reader, &mut buffer)?;
            if filled == 0 {
                break;
            }
        }
        // A shut-down connection can look like the end of a body without a length.
        self.cancel.check()?;
        match total {
            Some(total) if part.len() < total => Err(FetchError::ConnectionLost {
                url: shown(url),
                detail: format!("it ended after {} of {total} bytes", part.len()),
            }),
            _ => Ok(Attempt::Whole),
        }
    }

    fn read(&self, url: &str, reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, FetchError> {
        loop {
            self.cancel.check()?;
            match reader.read(buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => return other.map_err(|e| self.client.explain(url, e.into())),
            }
        }
    }
}

/// The hash that the hub named when the part's bytes were asked for.
fn named_by_hub(part: &Part) -> Option<Expected> {
    let sha256 = part.origin()?.sha256.clone()?;
    Some(Expected { sha256, origin: HUB_SAYS.to_owned() })
}

fn came_from(part: &Part, url: &str) -> bool {
    part.origin().is_some_and(|origin| origin.url == shown(url))
}
