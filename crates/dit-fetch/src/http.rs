//! One GET: redirects followed by hand, credentials only where they belong, failures told apart.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use crate::cancel::Cancel;
use crate::error::FetchError;
use crate::settings::Settings;
use crate::url::{Origin, join, shown};

const MOST_REDIRECTS: usize = 10;

/// Asks servers for files.
pub(crate) struct Client<'a> {
    settings: &'a Settings,
    direct: Agent,
    by_http_proxy: Option<Agent>,
    by_https_proxy: Option<Agent>,
    cancel: Cancel,
}

/// Which part of a file to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct From {
    /// First byte.
    pub(crate) start: u64,
    /// A validator: the whole file is wanted if it does not hold any more.
    pub(crate) if_range: Option<String>,
}

/// An answer whose status is 200, 206 or 416.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The file's hash, where it is a large file of the hub: told by the hub itself, on the way to wherever the bytes are.
    pub(crate) hub_sha256: Option<String>,
}

impl Reply {
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl<'a> Client<'a> {
    pub(crate) fn new(settings: &'a Settings, cancel: &Cancel) -> Result<Self, FetchError> {
        let roots = roots()?;
        let agent = |proxy: Option<Proxy>| {
            let agent: Agent = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(proxy)
                .timeout_resolve(Some(settings.timeouts.connect))
                .timeout_connect(Some(settings.timeouts.connect))
                .timeout_per_read(Some(settings.timeouts.read))
                .timeout_per_write(Some(settings.timeouts.read))
                .user_agent(concat!("dit-fetch/", env!("CARGO_PKG_VERSION")))
                // A compressed answer could be neither resumed nor compared with Content-Length.
                .accept_encoding("identity")
                .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .build()
                .into();
            let handle = agent.clone();
            cancel.on_cancel(move || handle.shutdown());
            agent
        };
        Ok(Client {
            settings,
            direct: agent(None),
            by_http_proxy: settings.proxies.http.clone().map(|p| agent(Some(p))),
            by_https_proxy: settings.proxies.https.clone().map(|p| agent(Some(p))),
            cancel: cancel.clone(),
        })
    }

    fn agent_for(&self, origin: &Origin) -> &Agent {
        let by_proxy = if origin.is_https() { &self.by_https_proxy } else { &self.by_http_proxy };
        match by_proxy {
            Some(agent) if !self.settings.proxies.exempts(origin) => agent,
            _ => &self.direct,
        }
    }

    /// Asks for `url` (from a byte on, if given) and follows redirects.
    ///
    /// The token goes to the hub's endpoint only: each hop's headers are decided anew from that hop's address.
    pub(crate) fn get(&self, url: &str, from: Option<&From>) -> Result<Reply, FetchError> {
        let mut here = url.to_owned();
        let mut hub_sha256 = None;
        for _ in 0..=MOST_REDIRECTS {
            self.cancel.check()?;
            let origin = Origin::of(&here).ok_or_else(|| FetchError::Redirect {
                url: shown(url),
                problem: "to what is no http or https address".to_owned(),
            })?;
            let mut request = self.agent_for(&origin).get(&here);
            if let Some(token) = self.settings.hub.token_for(&origin) {
                request = request.header(header::AUTHORIZATION, token.bearer());
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={}-", from.start));
                if let Some(validator) = &from.if_range {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            let (parts, body) = request.call().map_err(|e| self.explain(&here, e))?.into_parts();
            let status = parts.status;
            if self.settings.hub.is_at(&origin) {
                hub_sha256 = linked_sha256(&parts.headers).or(hub_sha256);
            }
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                here = self.next_hop(&here, &origin, &parts.headers)?;
            } else {
                accept(&here, status, &parts.headers)?;
                return Ok(Reply { status, headers: parts.headers, body, hub_sha256 });
            }
        }
        Err(FetchError::Redirect { url: shown(url), problem: format!("more than {MOST_REDIRECTS} times") })
    }

    fn next_hop(&self, here: &str, origin: &Origin, headers: &HeaderMap) -> Result<String, FetchError> {
        let refuse = |problem: &str| FetchError::Redirect { url: shown(here), problem: problem.to_owned() };
        let location = headers
            .get(header::LOCATION)
            .and_then(|v| v.to_str().ok())
            .ok_or_else(|| refuse("without saying where to"))?;
        let next = join(here, location).ok_or_else(|| refuse("to what is no http or https address"))?;
        if origin.is_https() && !Origin::of(&next).is_some_and(|o| o.is_https()) {
            return Err(refuse("from https to plain http, where anybody could change the file"));
        }
        Ok(next)
    }

    /// What an error of the HTTP library means to the user.
    pub(crate) fn explain(&self, url: &str, error: ureq::Error) -> FetchError {
        if self.cancel.is_cancelled() {
            return FetchError::Interrupted;
        }
        let url = shown(url);
        match error {
            ureq::Error::HostNotFound => FetchError::NoAddress { host: self.asked_host(&url) },
            ureq::Error::Timeout(ureq::Timeout::Resolve) => FetchError::NoAddress { host: self.asked_host(&url) },
            ureq::Error::Timeout(ureq::Timeout::Connect) => FetchError::Refused {
                url,
                detail: format!("no answer within {} s", self.settings.timeouts.connect.as_secs_f32()),
            },
            ureq::Error::Timeout(_) => FetchError::Stalled { url, after: self.settings.timeouts.read },
            ureq::Error::ConnectProxyFailed(detail) => FetchError::Proxy { url, detail },
            ureq::Error::Rustls(e) => FetchError::Tls { url, detail: e.to_string() },
            ureq::Error::Tls(e) => FetchError::Tls { url, detail: e.to_owned() },
            ureq::Error::Io(e) => self.explain_io(url, e),
            other => FetchError::ConnectionLost { url, detail: other.to_string() },
        }
    }

    fn explain_io(&self, url: String, error: io::Error) -> FetchError {
        let detail = error.to_string();
        // The standard library gives failed look-ups no kind of their own, only these words.
        if error.raw_os_error().is_none() && detail.contains("lookup address") {
            return FetchError::NoAddress { host: self.asked_host(&url) };
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied => FetchError::Refused { url, detail },
            // rustls reports a bad certificate through the reader as invalid data.
            io::ErrorKind::InvalidData => FetchError::Tls { url, detail },
            _ => FetchError::ConnectionLost { url, detail },
        }
    }

    /// The host whose name was looked up: the proxy's, where there is one.
    fn asked_host(&self, url: &str) -> String {
        let Some(origin) = Origin::of(url) else { return url.to_owned() };
        let proxies = &self.settings.proxies;
        let proxy = if origin.is_https() { &proxies.https } else { &proxies.http };
        match proxy {
            Some(proxy) if !proxies.exempts(&origin) => format!("{} (the proxy)", proxy.host()),
            _ => origin.host().to_owned(),
        }
    }
}

/// `X-Linked-Etag: "<64 hexadecimal digits>"`: the SHA-256 of a file that the hub keeps outside of git. Small files have
/// a git hash there, which is shorter.
fn linked_sha256(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-linked-etag")?.to_str().ok()?.trim();
    let value = value.strip_prefix("W/").unwrap_or(value).trim_matches('"');
    (value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit())).then(|| value.to_ascii_lowercase())
}

/// Errors for statuses that bring no file.
fn accept(url: &str, status: StatusCode, headers: &HeaderMap) -> Result<(), FetchError> {
    let url = shown(url);
    match status.as_u16() {
        200 | 206 | 416 => Ok(()),
        401 => Err(FetchError::Unauthorized { url }),
        403 | 451 => Err(FetchError::Forbidden { url }),
        404 | 410 => Err(FetchError::NotFound { url }),
        status => {
            let retry_after = headers
                .get(header::RETRY_AFTER)
                .and_then(|v| v.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs);
            Err(FetchError::Status { url, status, retry_after })
        }
    }
}

/// The certificates to trust: `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the system's; where there are none at all (a bare
/// container), Mozilla's list as compiled in.
fn roots() -> Result<RootCerts, FetchError> {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!("certificates: {error}");
    }
    if native.certs.is_empty() {
        // A list that the user named and that cannot be read must not silently become another list.
        return match ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().find(|name| std::env::var_os(name).is_some()) {
            Some(name) => Err(FetchError::Setting { name, problem: "no certificate could be read from it".to_owned() }),
            None => Ok(RootCerts::WebPki),
        };
    }
    let certs = native.certs.iter().map(|c| Certificate::from_der(c.as_ref()).to_owned()).collect();
    Ok(RootCerts::Specific(Arc::new(certs)))
}
