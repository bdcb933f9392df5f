//! The Hugging Face hub: another endpoint, a token, files that its cache already holds.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::FetchError;
use crate::url::Origin;

const HUB: &str = "https://huggingface.co";

/// An access token. Neither `Debug` nor anything else shows it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The value of the Authorization header.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The hub as this user sees it.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    /// Without a slash at its end.
    endpoint: String,
    token: Option<Token>,
    cache: Option<PathBuf>,
}

/// A file on the hub: `HUB/ORG/NAME/resolve/REVISION/PATH`.
#[derive(Debug, PartialEq, Eq)]
struct HubFile<'a> {
    org: &'a str,
    name: &'a str,
    revision: &'a str,
    path: &'a str,
}

impl<'a> HubFile<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix(HUB)?.strip_prefix('/')?;
        let rest = rest.split(['?', '#']).next()?;
        let mut parts = rest.splitn(5, '/');
        let (org, name, resolve) = (parts.next()?, parts.next()?, parts.next()?);
        let (revision, path) = (parts.next()?, parts.next()?);
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        (resolve == "resolve" && [org, name, revision].into_iter().chain(path.split('/')).all(plain))
            .then_some(HubFile { org, name, revision, path })
    }
}

impl Hub {
    /// Reads `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` and `HOME` through `var`.
    pub(crate) fn from_vars(var: &dyn Fn(&str) -> Option<String>) -> Result<Self, FetchError> {
        let set = |name: &str| var(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned()).trim_end_matches('/').to_owned();
        if Origin::of(&endpoint).is_none() {
            return Err(FetchError::Setting {
                name: "HF_ENDPOINT",
                problem: "it must read https://host[:port]".to_owned(),
            });
        }
        let token = set("HF_TOKEN");
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(FetchError::Setting {
                name: "HF_TOKEN",
                problem: "it holds characters that no token has (a line break?)".to_owned(),
            });
        }
        let cache = set("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| set("HF_HOME").map(|home| Path::new(&home).join("hub")))
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("huggingface/hub")))
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache/huggingface/hub")));
        Ok(Hub { endpoint, token: token.map(Token), cache })
    }

    /// `url` at this user's endpoint, if it is an address on the hub; unchanged otherwise.
    pub(crate) fn rewrite(&self, url: &str) -> String {
        match url.strip_prefix(HUB) {
            Some(rest) if rest.starts_with('/') => format!("{}{rest}", self.endpoint),
            _ => url.to_owned(),
        }
    }

    /// Whether this is the endpoint's own scheme, host and port.
    pub(crate) fn is_at(&self, origin: &Origin) -> bool {
        Origin::of(&self.endpoint).as_ref() == Some(origin)
    }

    /// The token, for the endpoint and for no other host.
    pub(crate) fn token_for(&self, origin: &Origin) -> Option<&Token> {
        self.token.as_ref().filter(|_| self.is_at(origin))
    }

    /// The file in the hub's cache (`models--ORG--NAME/snapshots/REVISION/PATH`), if `url` names a hub file that is
    /// there. The revision may be a branch or a short hash.
    pub(crate) fn cached(&self, url: &str) -> Option<PathBuf> {
        let file = HubFile::parse(url)?;
        let repo = self.cache.as_ref()?.join(format!("models--{}--{}", file.org, file.name));
        let snapshots = repo.join("snapshots");
        let branch = std::fs::read_to_string(repo.join("refs").join(file.revision)).ok();
        let named = branch.as_deref().map(str::trim).unwrap_or(file.revision);
        let mut revisions: Vec<PathBuf> = std::fs::read_dir(&snapshots)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(named)))
            .collect();
        revisions.sort();
        // A prefix that fits two revisions names neither.
        let [revision] = revisions.as_slice() else { return None };
        let path = revision.join(file.path);
        path.is_file().then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(vars: &[(&str, &str)]) -> Hub {
        Hub::from_vars(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())).unwrap()
    }

    #[test]
    fn hub_addresses_move_to_the_endpoint() {
        #[track_caller]
        fn check(endpoint: &str, url: &str, expected: &str) {
            assert_eq!(hub(&[("HF_ENDPOINT", endpoint)]).rewrite(url), expected);
        }
        check("https://m.example/", "https://huggingface.co/a/b/resolve/c/d", "https://m.example/a/b/resolve/c/d");
        check("", "https://huggingface.co/a", "https://huggingface.co/a");
        check("https://m.example", "https://dl.example/a", "https://dl.example/a");
        check("https://m.example", "https://huggingface.co.evil/a", "https://huggingface.co.evil/a");
    }

    #[test]
    fn the_token_belongs_to_the_endpoint_and_is_never_shown() {
        let hub = hub(&[("HF_ENDPOINT", "https://m.example"), ("HF_TOKEN", " hf_secret\n")]);
        #[track_caller]
        fn check(hub: &Hub, url: &str, given: bool) {
            assert_eq!(hub.token_for(&Origin::of(url).unwrap()).is_some(), given);
        }
        check(&hub, "https://m.example/x", true);
        check(&hub, "http://m.example/x", false);
        check(&hub, "https://m.example:444/x", false);
        check(&hub, "https://cdn.m.example/x", false);
        check(&hub, "https://huggingface.co/x", false);
        assert!(!format!("{hub:?}").contains("hf_secret"));
        assert_eq!(hub.token.unwrap().bearer(), "Bearer hf_secret");
    }

    #[test]
    fn unusable_settings_are_refused_without_being_shown() {
        #[track_caller]
        fn check(name: &str, value: &str) {
            let error = Hub::from_vars(&|n| (n == name).then(|| value.to_owned())).unwrap_err();
            assert!(error.to_string().contains(name) && !error.to_string().contains(value), "{error}");
        }
        check("HF_TOKEN", "hf_a\r\nX-Evil: 1");
        check("HF_ENDPOINT", "file:///x");
    }

    #[test]
    fn the_cache_is_where_the_hub_puts_it() {
        #[track_caller]
        fn check(vars: &[(&str, &str)], expected: Option<&str>) {
            assert_eq!(hub(vars).cache.as_deref(), expected.map(Path::new));
        }
        check(&[], None);
        check(&[("HOME", "/h")], Some("/h/.cache/huggingface/hub"));
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], Some("/x/huggingface/hub"));
        check(&[("HOME", "/h"), ("HF_HOME", "/f")], Some("/f/hub"));
        check(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], Some("/c"));
    }

    #[test]
    fn cached_files_are_found_by_commit_prefix_and_branch() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("models--o--n");
        for revision in ["31f26fdeee13", "31aa", "ffff"] {
            std::fs::create_dir_all(repo.join("snapshots").join(revision).join("sub")).unwrap();
            std::fs::write(repo.join("snapshots").join(revision).join("sub/f.bin"), revision).unwrap();
        }
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "ffff\n").unwrap();
        let hub = hub(&[("HF_HUB_CACHE", dir.path().to_str().unwrap())]);
        let check = |revision: &str, path: &str, expected: Option<&str>| {
            let found = hub.cached(&format!("https://huggingface.co/o/n/resolve/{revision}/{path}"));
            let expected = expected.map(|r| repo.join("snapshots").join(r).join("sub/f.bin"));
            assert_eq!(found, expected, "{revision} {path}");
        };
        check("31f26fdeee13", "sub/f.bin", Some("31f26fdeee13"));
        check("31f26", "sub/f.bin", Some("31f26fdeee13"));
        check("31", "sub/f.bin", None);
        check("main", "sub/f.bin", Some("ffff"));
        check("main", "sub/g.bin", None);
        check("main", "../ffff/sub/f.bin", None);
        check("..", "sub/f.bin", None);
        assert_eq!(hub.cached("https://dl.example/o/n/resolve/main/sub/f.bin"), None);
    }
}
