//! The addresses to ask for a file, in order.

use crate::settings::Settings;

/// Whether only one checkpoint of the manifest has a file of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileName {
    Unique,
    Shared,
}

/// The mirror's addresses, then the manifest's at this user's hub endpoint.
pub(crate) fn addresses(
    settings: &Settings,
    name: &str,
    file: &str,
    file_name: FileName,
    urls: &[String],
) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(mirror) = &settings.mirror {
        all.push(format!("{mirror}/{name}/{file}"));
        all.extend(urls.iter().filter_map(|url| Some(format!("{mirror}{}", path(url)?))));
        // A name like config.json says nothing of which checkpoint it belongs to.
        if file_name == FileName::Unique {
            all.push(format!("{mirror}/{file}"));
        }
    }
    all.extend(urls.iter().map(|url| settings.hub.rewrite(url)));
    let mut seen = std::collections::HashSet::new();
    all.retain(|url| seen.insert(url.clone()));
    all
}

/// The path of an address, with its slash.
fn path(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let path = &rest[rest.find('/')?..];
    path.split(['?', '#']).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[track_caller]
    fn check(mirror: Option<&str>, endpoint: Option<&str>, file_name: FileName, expected: &[&str]) {
        let var = |name: &str| endpoint.filter(|_| name == "HF_ENDPOINT").map(str::to_owned);
        let mut settings = Settings::from_vars(Path::new("."), &var).unwrap();
        if let Some(mirror) = mirror {
            settings.set_mirror(mirror).unwrap();
        }
        let urls = ["https://dl.example/a/f.pt", "https://huggingface.co/o/n/resolve/r/f.pt"].map(str::to_owned);
        assert_eq!(addresses(&settings, "n", "f.pt", file_name, &urls), expected);
    }

    #[test]
    fn mirrors_come_first_and_the_hub_may_be_elsewhere() {
        let plain = ["https://dl.example/a/f.pt", "https://huggingface.co/o/n/resolve/r/f.pt"];
        check(None, None, FileName::Unique, &plain);
        check(None, Some("https://h.example"), FileName::Unique, &[plain[0], "https://h.example/o/n/resolve/r/f.pt"]);
        let mirrored =
            ["http://m:1/w/n/f.pt", "http://m:1/w/a/f.pt", "http://m:1/w/o/n/resolve/r/f.pt", "http://m:1/w/f.pt"];
        check(Some("http://m:1/w/"), None, FileName::Unique, &[&mirrored[..], &plain].concat());
        check(Some("http://m:1/w"), None, FileName::Shared, &[&mirrored[..3], &plain].concat());
        // A mirror of one of the hosts itself is asked once.
        check(
            Some("https://dl.example"),
            None,
            FileName::Shared,
            &["https://dl.example/n/f.pt", plain[0], "https://dl.example/o/n/resolve/r/f.pt", plain[1]],
        );
    }

    #[test]
    fn a_mirror_must_be_an_address() {
        let mut settings = Settings::from_vars(Path::new("."), &|_| None).unwrap();
        for bad in ["", "mirror.example", "file:///data", "http://m/?x"] {
            assert_eq!(settings.set_mirror(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
