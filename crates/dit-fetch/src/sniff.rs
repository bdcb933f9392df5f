//! Pages that come instead of files.

/// Bytes needed to tell.
pub(crate) const HEAD: usize = 512;

/// What a file is that begins like this, if it is surely no checkpoint.
pub(crate) fn not_a_checkpoint(head: &[u8], content_type: Option<&str>) -> Option<&'static str> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let starts = |prefix: &str| text.get(..prefix.len()).is_some_and(|t| t.eq_ignore_ascii_case(prefix.as_bytes()));
    let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if starts("<!doctype") || starts("<html") || starts("<head") || starts("<script") {
        Some("an HTML page")
    } else if starts("<?xml") || starts("<error") {
        Some("an XML message")
    } else if starts("version https://git-lfs") {
        Some("a Git LFS pointer (the file itself was not stored there)")
    } else if ["text/html", "application/xhtml+xml"].iter().any(|m| media.eq_ignore_ascii_case(m)) {
        Some("an HTML page, as the server says")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_from_files() {
        #[track_caller]
        fn check(head: &[u8], content_type: Option<&str>, expected: Option<&str>) {
            assert_eq!(not_a_checkpoint(head, content_type), expected);
        }
        check(b"\n  <!DOCTYPE html><html>", None, Some("an HTML page"));
        check(b"\xef\xbb\xbf<HTML>", Some("application/octet-stream"), Some("an HTML page"));
        check(b"<?xml version='1.0'?><Error>", None, Some("an XML message"));
        check(
            b"version https://git-lfs.github.com/spec/v1\n",
            None,
            Some("a Git LFS pointer (the file itself was not stored there)"),
        );
        check(b"Please log in", Some("Text/HTML; charset=utf-8"), Some("an HTML page, as the server says"));
        check(b"PK\x03\x04", Some("application/zip"), None);
        check(b"\x80\x02", None, None);
        check(b"{\"in_channels\": 3}", Some("text/plain"), None);
        check(b"", None, None);
        check(b"<h", None, None);
    }
}
