use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// ImageNet's classes, a line each; the file's header tells how it was made.
const IMAGENET: &str = include_str!("imagenet.txt");

/// The names of a model's classes.
///
/// Each class has a first name and perhaps synonyms; or no class has any name. A name holds no comma, since commas separate
/// both synonyms here and items in a list of classes. Names are matched without regard to case, to the width of spaces,
/// and to whether a space is written as an underscore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassNames {
    /// How many classes there are. `names` is empty or as long as this.
    count: u32,
    names: Vec<Vec<String>>,
    /// From the folded name to the ids that bear it, ascending.
    ids: BTreeMap<String, Vec<u32>>,
}

impl ClassNames {
    /// The 1000 classes of ImageNet (ILSVRC 2012), in the order of the published models: sorted synset ids.
    pub fn imagenet() -> Self {
        let lines = IMAGENET.lines().filter(|line| !line.starts_with('#'));
        Self::new(lines.map(synonyms).collect(), 1000)
    }

    /// Classes that have ids alone.
    pub fn unnamed(count: u32) -> Self {
        Self::new(Vec::new(), count)
    }

    /// The names as a checkpoint's metadata carries them: one string a class, in the order of the ids, synonyms within a
    /// string separated by commas, as in `tench, Tinca tinca`.
    ///
    /// # Errors
    /// [`Error::EmptyName`], [`Error::TooMany`].
    pub fn from_lines(lines: &[String]) -> Result<Self> {
        let names: Vec<_> = lines.iter().map(|line| synonyms(line)).collect();
        if let Some(id) = names.iter().position(|names| names.iter().any(String::is_empty)) {
            return Err(Error::EmptyName { id });
        }
        let count = narrow(names.len())?;
        Ok(Self::new(names, count))
    }

    /// The same from a JSON array of those strings: `["tench, Tinca tinca", "goldfish"]`.
    ///
    /// # Errors
    /// [`Error::Json`], and those of [`from_lines`](Self::from_lines).
    pub fn from_json(text: &str) -> Result<Self> {
        let lines: Vec<String> = serde_json::from_str(text).map_err(Error::Json)?;
        Self::from_lines(&lines)
    }

    /// The names that go with a checkpoint of `classes` classes: those in its metadata if there are any; else
    /// ImageNet's if there are a thousand, as in the published models, which carry no names; else none.
    ///
    /// # Errors
    /// As [`from_lines`](Self::from_lines), and [`Error::Count`] if another number of classes is named than there is.
    pub fn of_checkpoint(metadata: Option<&[String]>, classes: usize) -> Result<Self> {
        let classes = narrow(classes)?;
        let imagenet = Self::imagenet();
        match metadata {
            Some(lines) => {
                let named = Self::from_lines(lines)?;
                if named.len() != classes {
                    return Err(Error::Count { names: named.len(), classes });
                }
                Ok(named)
            }
            None if classes == imagenet.len() => Ok(imagenet),
            None => Ok(Self::unnamed(classes)),
        }
    }

    /// The names as [`from_lines`](Self::from_lines) reads them; `None` if there are none.
    pub fn to_lines(&self) -> Option<Vec<String>> {
        let lines = self.names.iter().map(|names| names.join(", "));
        (!self.names.is_empty()).then(|| lines.collect())
    }

    /// How many classes there are. The null class of guidance is not counted.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are no classes at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first name of a class, for captions and tables.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.synonyms(id).first().map(String::as_str)
    }

    /// All names of a class, the usual one first; empty if it has none or is out of range.
    pub fn synonyms(&self, id: u32) -> &[String] {
        self.names.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The ids that bear `name`, ascending: none, one, or several.
    pub fn ids(&self, name: &str) -> &[u32] {
        self.ids.get(&fold(name)).map_or(&[], Vec::as_slice)
    }

    /// Every folded name with its ids, in alphabetical order.
    pub(crate) fn folded(&self) -> impl Iterator<Item = (&str, &[u32])> {
        self.ids.iter().map(|(name, ids)| (name.as_str(), ids.as_slice()))
    }

    fn new(names: Vec<Vec<String>>, count: u32) -> Self {
        let mut ids = BTreeMap::<String, Vec<u32>>::new();
        for (id, names) in (0..).zip(&names) {
            for name in names {
                let bearers = ids.entry(fold(name)).or_default();
                // Two synonyms of one class may differ in case alone.
                if bearers.last() != Some(&id) {
                    bearers.push(id);
                }
            }
        }
        Self { count, names, ids }
    }
}

/// A name as it is compared: lower case, single spaces, no underscores.
pub(crate) fn fold(name: &str) -> String {
    let words = name.split(|c: char| c == '_' || c.is_whitespace());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").to_lowercase()
}

fn narrow(found: usize) -> Result<u32> {
    u32::try_from(found).map_err(|_| Error::TooMany { found })
}

fn synonyms(line: &str) -> Vec<String> {
    line.split([',', '/']).map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_imagenet(id: u32, first: &str, synonyms: usize) {
        let classes = ClassNames::imagenet();
        assert_eq!(classes.name(id), Some(first));
        assert_eq!(classes.synonyms(id).len(), synonyms);
    }

    #[test]
    fn imagenet_is_in_the_order_of_the_published_models() {
        check_imagenet(0, "tench", 2);
        check_imagenet(88, "macaw", 1);
        check_imagenet(207, "golden retriever", 1);
        check_imagenet(279, "Arctic fox", 3);
        check_imagenet(360, "otter", 1);
        check_imagenet(387, "lesser panda", 6);
        check_imagenet(417, "balloon", 1);
        check_imagenet(974, "geyser", 1);
        check_imagenet(979, "valley", 2);
        check_imagenet(999, "toilet tissue", 3);
    }

    #[test]
    fn imagenet_is_whole() {
        let classes = ClassNames::imagenet();
        assert_eq!(classes.names.len(), 1000);
        assert_eq!(classes.len(), 1000);
        assert!(classes.names.iter().flatten().all(|name| !name.is_empty() && name.is_ascii()));
        let shared: Vec<_> = classes.folded().filter(|(_, ids)| ids.len() > 1).collect();
        assert_eq!(shared.len(), 19);
        assert_eq!(classes.ids("crane"), [134, 517]);
        assert_eq!(classes.ids("Maillot"), [638, 639]);
        assert_eq!(classes.name(1000), None);
        assert!(classes.synonyms(u32::MAX).is_empty());
    }

    #[track_caller]
    fn check_found(name: &str, expected: &[u32]) {
        assert_eq!(ClassNames::imagenet().ids(name), expected, "{name}");
    }

    #[test]
    fn spelling_is_forgiven_where_it_carries_no_meaning() {
        check_found("golden retriever", &[207]);
        check_found("  Golden   RETRIEVER ", &[207]);
        check_found("golden_retriever", &[207]);
        check_found("tinca tinca", &[0]);
        check_found("goldenretriever", &[]);
        check_found("", &[]);
        check_found("tench, Tinca tinca", &[]);
    }

    #[test]
    fn names_travel_as_json() {
        let text = r#"["T-shirt/top","Ankle boot, bottine","Äpfel"]"#;
        let classes = ClassNames::from_json(text).unwrap();
        assert_eq!(classes.len(), 3);
        assert_eq!(classes.synonyms(1), ["Ankle boot", "bottine"]);
        assert_eq!(classes.ids("äpfel"), [2]);
        let back = |classes: &ClassNames| ClassNames::from_lines(&classes.to_lines().unwrap()).unwrap();
        assert_eq!(back(&classes), classes);
        assert_eq!(back(&ClassNames::imagenet()), ClassNames::imagenet());
        assert_eq!(ClassNames::unnamed(3).to_lines(), None);
    }

    #[track_caller]
    fn check_refused(json: &str, expected: &str) {
        let error = ClassNames::from_json(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn broken_metadata_is_refused() {
        check_refused("", "not a JSON array of strings");
        check_refused(r#"{"0":"a"}"#, "not a JSON array of strings");
        check_refused(r#"[["a","b"]]"#, "not a JSON array of strings");
        check_refused(r#"["a",""]"#, "class 1 has an empty name");
        check_refused(r#"["a, ,b"]"#, "class 0 has an empty name");
    }

    #[test]
    fn checkpoints_bring_names_or_fall_back() {
        let two = ["a, c".to_owned(), "b".to_owned()];
        let of = |metadata, classes| ClassNames::of_checkpoint(metadata, classes).unwrap();
        assert_eq!(of(None, 1000), ClassNames::imagenet());
        assert_eq!(of(None, 10), ClassNames::unnamed(10));
        assert_eq!(of(Some(&two), 2).synonyms(0), ["a", "c"]);
        assert!(of(None, 0).is_empty());
        let error = ClassNames::of_checkpoint(Some(&two), 3).unwrap_err().to_string();
        assert!(error.contains("names 2 classes, but its label table has 3"), "{error}");
        let error = ClassNames::of_checkpoint(None, 1 << 32).unwrap_err().to_string();
        assert!(error.contains("at most 4294967295"), "{error}");
    }
}
