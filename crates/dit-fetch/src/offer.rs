//! What an answer's status and headers offer.

use ureq::http::header;

use crate::error::FetchError;
use crate::http::Reply;
use crate::part::Origin;
use crate::url::shown;

/// What a server offers in answer to a request.
pub(crate) struct Offer {
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
}

/// Which bytes.
pub(crate) enum Kind {
    /// The file from its first byte.
    Everything,
    /// The bytes that were asked for.
    Rest,
    /// Bytes from another place.
    Elsewhere,
    /// No bytes: the range was refused.
    Nothing,
}

impl Offer {
    /// Reads it from an answer to a request for the bytes from `asked` on.
    pub(crate) fn read(url: &str, reply: &Reply, asked: u64) -> Result<Offer, FetchError> {
        let own = |name| reply.header(name).map(str::to_owned);
        let range = reply.header(header::CONTENT_RANGE).and_then(ContentRange::parse);
        let length = reply.header(header::CONTENT_LENGTH).and_then(|v| v.trim().parse::<u64>().ok());
        let (kind, total) = match (reply.status.as_u16(), range) {
            (200, _) => (Kind::Everything, length),
            (206, Some(ContentRange { start: Some(start), total })) => {
                let kind = match start {
                    0 if asked == 0 => Kind::Everything,
                    start if start == asked => Kind::Rest,
                    _ => Kind::Elsewhere,
                };
                (kind, total.or(length.and_then(|l| l.checked_add(start))))
            }
            (206, _) => (Kind::Elsewhere, None),
            (416, range) => (Kind::Nothing, range.and_then(|r| r.total)),
            (status, _) => return Err(FetchError::Status { url: shown(url), status, retry_after: None }),
        };
        let origin = Origin {
            url: shown(url),
            etag: own(header::ETAG),
            last_modified: own(header::LAST_MODIFIED),
            total,
            sha256: reply.hub_sha256.clone(),
        };
        Ok(Offer { kind, origin })
    }
}

/// `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(value: &str) -> Option<Self> {
        let (range, total) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let start = match range.trim() {
            "*" => None,
            range => Some(range.split_once('-')?.0.trim().parse().ok()?),
        };
        let total = match total.trim() {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        Some(ContentRange { start, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        #[track_caller]
        fn check(value: &str, expected: Option<(Option<u64>, Option<u64>)>) {
            assert_eq!(ContentRange::parse(value), expected.map(|(start, total)| ContentRange { start, total }));
        }
        check("bytes 5-9/10", Some((Some(5), Some(10))));
        check("bytes 5-9/*", Some((Some(5), None)));
        check("bytes */10", Some((None, Some(10))));
        check("bytes=5-9/10", None);
        check("items 5-9/10", None);
        check("bytes 5/10", None);
        check("bytes -5-9/10", None);
        check("bytes 99999999999999999999-9/10", None);
        check("", None);
    }
}
