use std::collections::BTreeSet;

use crate::names::{ClassNames, fold};

/// At most this many names are suggested.
const MOST: usize = 5;
/// Below this similarity a name is no misspelling but another word.
const LEAST: f64 = 0.72;

/// Names near `typed`, the nearest first, each in its usual spelling and with its ids.
///
/// Names that contain all the words typed come first, the shortest ahead (`retriever` → `golden retriever`); then
/// misspellings, by the Damerau–Levenshtein distance relative to the length (`goldn retriever`, `gloden retriever`).
pub(crate) fn near(classes: &ClassNames, typed: &str) -> Vec<(String, Vec<u32>)> {
    let typed = fold(typed);
    let words: Vec<_> = typed.split(' ').collect();
    let mut found: Vec<_> = classes
        .folded()
        .filter_map(|(name, ids)| {
            let has = |word: &&str| name.split([' ', '-']).any(|own| own == *word);
            let nearness = if words.iter().all(has) {
                2.0 - name.chars().count() as f64 / 1000.0
            } else {
                strsim::normalized_damerau_levenshtein(&typed, name)
            };
            (nearness >= LEAST).then_some((nearness, name, ids))
        })
        .collect();
    // Stable: equally near names stay in alphabetical order.
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut named = BTreeSet::new();
    found.retain(|(_, _, ids)| named.insert(*ids)); // one name a class is enough
    found.truncate(MOST);
    found.into_iter().map(|(_, name, ids)| (usual_spelling(classes, name, ids), ids.to_vec())).collect()
}

fn usual_spelling(classes: &ClassNames, folded: &str, ids: &[u32]) -> String {
    let all = ids.iter().flat_map(|&id| classes.synonyms(id));
    let own = all.into_iter().find(|name| fold(name) == folded);
    own.map_or_else(|| folded.to_owned(), String::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The suggestions begin with `expected`.
    #[track_caller]
    fn check(typed: &str, expected: &[&str]) {
        let found = near(&ClassNames::imagenet(), typed);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.starts_with(expected), "{names:?}");
        assert!(names.len() <= MOST);
    }

    #[test]
    fn near_names_are_found() {
        check("goldn retriever", &["golden retriever"]);
        check("GLODEN retriever", &["golden retriever"]);
        check("golden-retriever", &["golden retriever"]);
        check("artic fox", &["Arctic fox"]);
        check("fox", &["kit fox", "red fox", "gray fox", "white fox"]);
        check("terrier boston", &["Boston terrier"]);
        check("macow", &["macaw"]);
        check("baloon", &["balloon"]);
    }

    #[test]
    fn far_names_are_not() {
        assert!(near(&ClassNames::imagenet(), "qqqqqqqqqq").is_empty());
        assert!(near(&ClassNames::unnamed(5), "otter").is_empty());
    }
}
