//! Addresses: what may be shown of one, where a redirect leads, what counts as the same host.

use ureq::http::Uri;

/// An address as it may be shown: without user, password and query. A redirect's query is often a signature that
/// opens the file to whoever holds it.
pub(crate) fn shown(url: &str) -> String {
    let cut = url.find(['?', '#']).unwrap_or(url.len());
    let bare = &url[..cut];
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Scheme, host and port: what a credential belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` unless `url` is an http or https address with a host.
    pub(crate) fn of(url: &str) -> Option<Origin> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|h| !h.is_empty())?.to_ascii_lowercase();
        Some(Origin { port: uri.port_u16().unwrap_or(default), scheme, host })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// Where `location` leads from `base` (RFC 3986, section 5.2; dot segments are left to the server).
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, rest) = base.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('?').next().unwrap_or_default();
    let joined = if location.contains("://") {
        location.to_owned()
    } else if let Some(elsewhere) = location.strip_prefix("//") {
        format!("{scheme}://{elsewhere}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') || location.is_empty() {
        format!("{scheme}://{authority}{path}{location}")
    } else {
        let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
        format!("{scheme}://{authority}{folder}{location}")
    };
    Origin::of(&joined).map(|_| joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        #[track_caller]
        fn check(url: &str, expected: &str) {
            assert_eq!(shown(url), expected);
        }
        check("https://cdn.example/a/b.pt?X-Amz-Signature=s3cret", "https://cdn.example/a/b.pt");
        check("https://user:pass@host:8443/x#f", "https://host:8443/x");
        check("https://host", "https://host");
        check("http://h/p@q/x", "http://h/p@q/x");
        check("/some/file.pt", "/some/file.pt");
    }

    #[test]
    fn origins_compare_scheme_host_and_port() {
        #[track_caller]
        fn check(a: &str, b: &str, same: bool) {
            assert_eq!(Origin::of(a) == Origin::of(b), same);
        }
        check("https://HuggingFace.co/x", "https://huggingface.co:443/y?z", true);
        check("https://huggingface.co/x", "http://huggingface.co/x", false);
        check("https://huggingface.co/x", "https://cdn.huggingface.co/x", false);
        check("http://127.0.0.1:1/x", "http://127.0.0.1:2/x", false);
        check("http://127.0.0.1:1/x", "http://localhost:1/x", false);
        assert_eq!(Origin::of("ftp://host/x"), None);
        assert_eq!(Origin::of("host/x"), None);
        assert_eq!(Origin::of(""), None);
    }

    #[test]
    fn redirects_are_joined() {
        #[track_caller]
        fn check(location: &str, expected: Option<&str>) {
            assert_eq!(join("https://h:8/a/b?q=1", location).as_deref(), expected);
        }
        check("https://other/x?y", Some("https://other/x?y"));
        check("//other/x", Some("https://other/x"));
        check("/x#frag", Some("https://h:8/x"));
        check("c", Some("https://h:8/a/c"));
        check("?n=2", Some("https://h:8/a/b?n=2"));
        check("", Some("https://h:8/a/b"));
        check("file:///etc/passwd", None);
        check("javascript://x", None);
        assert_eq!(join("https://h", "x").as_deref(), Some("https://h/x"));
    }
}
