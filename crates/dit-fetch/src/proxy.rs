//! Which proxy to ask, from the usual variables: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.

use ureq::Proxy;

use crate::error::FetchError;
use crate::url::Origin;

/// Proxies by scheme, and the hosts that need none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    pub(crate) https: Option<Proxy>,
    pub(crate) http: Option<Proxy>,
    exempt: Vec<String>,
}

impl Proxies {
    /// Reads the variables through `var`. As in curl, the lower-case spelling wins.
    pub(crate) fn from_vars(var: &dyn Fn(&str) -> Option<String>) -> Result<Self, FetchError> {
        let either = |lower: &str, upper: &str| var(lower).or_else(|| var(upper)).filter(|v| !v.trim().is_empty());
        let parse = |name, value: Option<String>| {
            value
                .map(|v| {
                    Proxy::new(v.trim()).map_err(|_| FetchError::Setting {
                        name,
                        problem: "it must read http://[user:password@]host:port (or https, socks5)".to_owned(),
                    })
                })
                .transpose()
        };
        let all = parse("ALL_PROXY", either("all_proxy", "ALL_PROXY"))?;
        Ok(Proxies {
            https: parse("HTTPS_PROXY", either("https_proxy", "HTTPS_PROXY"))?.or(all.clone()),
            http: parse("HTTP_PROXY", either("http_proxy", "HTTP_PROXY"))?.or(all),
            exempt: either("no_proxy", "NO_PROXY")
                .map(|list| list.split(',').map(|e| e.trim().to_ascii_lowercase()).filter(|e| !e.is_empty()).collect())
                .unwrap_or_default(),
        })
    }

    /// Whether `NO_PROXY` covers the host: `*`, a host, or a domain with everything below it.
    pub(crate) fn exempts(&self, origin: &Origin) -> bool {
        let host = origin.host().trim_start_matches('[').trim_end_matches(']');
        self.exempt.iter().any(|entry| {
            let domain = entry.trim_start_matches("*.").trim_start_matches('.');
            entry == "*"
                || host == domain
                || host.strip_suffix(domain).is_some_and(|left| !domain.is_empty() && left.ends_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(vars: &[(&str, &str)]) -> Result<Proxies, FetchError> {
        Proxies::from_vars(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        #[track_caller]
        fn check(vars: &[(&str, &str)], https: Option<&str>, http: Option<&str>) {
            let proxies = proxies(vars).unwrap();
            assert_eq!(proxies.https.as_ref().map(Proxy::host), https, "https");
            assert_eq!(proxies.http.as_ref().map(Proxy::host), http, "http");
        }
        check(&[], None, None);
        check(&[("HTTPS_PROXY", "http://a:1")], Some("a"), None);
        check(&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")], Some("b"), None);
        check(&[("ALL_PROXY", "socks5://c:1"), ("http_proxy", "d:1")], Some("c"), Some("d"));
        check(&[("HTTPS_PROXY", " ")], None, None);
    }

    #[test]
    fn a_bad_proxy_is_an_error_that_shows_no_password() {
        let error = proxies(&[("HTTPS_PROXY", "gopher://me:s3cret@host")]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn hosts_can_be_exempt() {
        #[track_caller]
        fn check(list: &str, url: &str, expected: bool) {
            let proxies = proxies(&[("NO_PROXY", list)]).unwrap();
            assert_eq!(proxies.exempts(&Origin::of(url).unwrap()), expected);
        }
        check("*", "http://x/", true);
        check("localhost, 127.0.0.1", "http://127.0.0.1:80/", true);
        check("example.com", "https://Example.com/", true);
        check("example.com", "https://a.example.com/", true);
        check(".example.com", "https://a.example.com/", true);
        check("*.example.com", "https://a.b.example.com/", true);
        check("example.com", "https://badexample.com/", false);
        check("::1", "http://[::1]:3/", true);
        check("", "http://x/", false);
        check(" , ", "http://x/", false);
    }
}
