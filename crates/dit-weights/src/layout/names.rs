//! Tensor names as a file has them, freed of what wrappers put before them.

use std::collections::BTreeMap;

use crate::{Error, TensorSource};

/// What training wrappers put before every name: distributed data parallel, and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Plain names, each with the name in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// What precedes the plain names in the file.
    pub(crate) prefix: String,
    pub(crate) plain: BTreeMap<String, String>,
}

impl Names {
    /// The names of `source` that begin with `prefix`, without it and without wrappers' prefixes.
    ///
    /// # Errors
    /// [`Error::DuplicateTensor`] where two names become one.
    pub(crate) fn of(source: &dyn TensorSource, prefix: &str) -> Result<Self, Error> {
        let mut names = Self { prefix: prefix.to_owned(), plain: BTreeMap::new() };
        for full in source.infos().keys() {
            let Some(mut name) = full.strip_prefix(prefix) else { continue };
            while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
                name = rest;
            }
            if name.len() + prefix.len() < full.len() {
                names.prefix = full[..full.len() - name.len()].to_owned();
            }
            if names.plain.insert(name.to_owned(), full.clone()).is_some() {
                return Err(Error::DuplicateTensor { name: name.to_owned() });
            }
        }
        Ok(names)
    }

    /// Whether any plain name begins with one of `starts`.
    pub(crate) fn any_starts_with(&self, starts: &[&str]) -> bool {
        self.plain.keys().any(|name| starts.iter().any(|start| name.starts_with(start)))
    }

    /// A few names, for a message.
    pub(crate) fn sample(&self) -> String {
        const SHOWN: usize = 4;
        let shown: Vec<&str> = self.plain.keys().take(SHOWN).map(String::as_str).collect();
        match self.plain.len() {
            0 => "it has no tensors".to_owned(),
            count if count > SHOWN => format!("its {count} tensors begin {}, …", shown.join(", ")),
            _ => format!("its tensors are {}", shown.join(", ")),
        }
    }
}

/// Splits `blocks.12.rest` after `blocks.` into 12 and `rest`. Numbers are written without leading zeros.
pub(crate) fn split_index(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let index: usize = digits.parse().ok()?;
    (index.to_string() == digits).then_some((index, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemorySource, TensorView};

    fn source(names: &[&str]) -> MemorySource {
        names.iter().map(|&name| (name, TensorView::from_f32(vec![1], &[0.0]).unwrap())).collect()
    }

    #[track_caller]
    fn check(names: &[&str], prefix: &str, plain: &[(&str, &str)]) {
        let found = Names::of(&source(names), prefix).unwrap();
        let expected: BTreeMap<_, _> = plain.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        assert_eq!(found.plain, expected);
    }

    #[test]
    fn wrappers_are_stripped() {
        check(&["a", "b.c"], "", &[("a", "a"), ("b.c", "b.c")]);
        check(&["module.a", "module._orig_mod.b"], "", &[("a", "module.a"), ("b", "module._orig_mod.b")]);
        check(&["ema.module.a", "model.module.a", "step"], "ema.", &[("a", "ema.module.a")]);
        let clash = Names::of(&source(&["a", "module.a"]), "").unwrap_err();
        assert!(matches!(clash, Error::DuplicateTensor { name } if name == "a"));
    }

    #[test]
    fn indices_are_plain_numbers() {
        for (text, expected) in [
            ("12.rest.of", Some((12, "rest.of"))),
            ("0.a", Some((0, "a"))),
            ("01.a", None),
            ("+1.a", None),
            ("x.a", None),
            ("1", None),
            ("99999999999999999999999.a", None),
        ] {
            assert_eq!(split_index(text), expected, "{text}");
        }
    }
}
