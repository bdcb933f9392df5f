//! What a licence means to somebody who fetches weights under it.

/// A sentence or two on the licence, in the manifest's spelling. Not legal advice; the licence's own text counts.
pub(crate) fn notice(licence: &str) -> String {
    let known = match licence.to_ascii_uppercase().as_str() {
        "CC-BY-NC-4.0" => {
            "Non-commercial use only: you may share and adapt these weights, and what you make from them, for \
             non-commercial purposes, with credit to their authors. https://creativecommons.org/licenses/by-nc/4.0/"
        }
        "MIT" => {
            "Free for any use, commercial use included, as long as the copyright notice stays with copies. https://spdx.org/licenses/MIT.html"
        }
        "APACHE-2.0" => {
            "Free for any use, commercial use included, with its notices kept. https://www.apache.org/licenses/LICENSE-2.0"
        }
        "CC0-1.0" => {
            "In the public domain as far as the law allows. https://creativecommons.org/publicdomain/zero/1.0/"
        }
        _ => {
            return format!(
                "This project knows nothing about `{licence}`: read its text before you use these weights."
            );
        }
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_licences_are_explained() {
        #[track_caller]
        fn check(licence: &str, part: &str) {
            assert!(notice(licence).contains(part));
        }
        check("CC-BY-NC-4.0", "Non-commercial use only");
        check("cc-by-nc-4.0", "Non-commercial use only");
        check("MIT", "any use");
        check("Lab-Internal", "`Lab-Internal`");
    }
}
