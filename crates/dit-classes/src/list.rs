use crate::error::{Error, Problem, Result};
use crate::names::ClassNames;
use crate::suggest::near;

impl ClassNames {
    /// Resolves a list of classes.
    ///
    /// Items are separated by commas; each is an id (`207`), a range with both ends included (`0-9`), the word `all`, or
    /// any name of a class, or several with slashes between. Order and repeats are kept. What looks like an id or a range is one, even where a class bears
    /// that name.
    ///
    /// # Errors
    /// [`Error::List`] with every [`Problem`]: unknown names with near ones, names that several classes share with
    /// their ids, ids out of range, empty items.
    pub fn parse_list(&self, list: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut problems = Vec::new();
        for (position, item) in (1..).zip(list.split(',')) {
            match self.item(item.trim(), position) {
                Ok(item) => ids.extend(item),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(ids) } else { Err(Error::List(problems)) }
    }

    /// The ids that one item means. Always at least one, and every one in range.
    fn item(&self, item: &str, position: usize) -> Result<std::ops::RangeInclusive<u32>, Problem> {
        if item.is_empty() {
            return Err(Problem::Empty { position });
        }
        let out_of_range = || Problem::OutOfRange { item: item.to_owned(), classes: self.len() };
        let id = |digits: &str| {
            let id = digits.parse().ok().filter(|&id: &u32| id < self.len());
            id.ok_or_else(out_of_range)
        };
        match form(item) {
            Form::All => match self.len().checked_sub(1) {
                Some(last) => Ok(0..=last),
                None => Err(out_of_range()),
            },
            Form::Id(digits) => id(digits).map(|id| id..=id),
            Form::Negative => Err(out_of_range()),
            Form::Range(from, to) => {
                let (from, to) = (id(from)?, id(to)?);
                if from > to {
                    return Err(Problem::Backwards { item: item.to_owned(), forwards: format!("{to}-{from}") });
                }
                Ok(from..=to)
            }
            Form::Name => self.named(item).map(|id| id..=id),
        }
    }

    fn named(&self, item: &str) -> Result<u32, Problem> {
        let item_text = || item.to_owned();
        match self.bearers(item).as_slice() {
            &[id] => Ok(id),
            [] if self.folded().next().is_none() => Err(Problem::NoNames { item: item_text(), classes: self.len() }),
            [] => Err(Problem::Unknown { item: item_text(), near: near(self, item) }),
            several => Err(Problem::Ambiguous {
                item: item_text(),
                classes: several.iter().map(|&id| (id, self.synonyms(id).join(", "))).collect(),
            }),
        }
    }
}

impl ClassNames {
    /// The classes that bear every one of the names that `item` is, written as names of one class are: `T-shirt/top`.
    fn bearers(&self, item: &str) -> Vec<u32> {
        let mut names = item.split('/').map(|name| self.ids(name));
        let first = names.next().unwrap_or_default();
        first.iter().copied().filter(|id| names.clone().all(|ids| ids.contains(id))).collect()
    }
}

/// What an item looks like.
enum Form<'a> {
    All,
    Id(&'a str),
    Negative,
    Range(&'a str, &'a str),
    Name,
}

fn form(item: &str) -> Form<'_> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if item.eq_ignore_ascii_case("all") {
        return Form::All;
    }
    if digits(item) {
        return Form::Id(item);
    }
    match item.split_once('-').map(|(from, to)| (from.trim(), to.trim())) {
        Some((from, to)) if digits(from) && digits(to) => Form::Range(from, to),
        Some(("", to)) if digits(to) => Form::Negative,
        _ => Form::Name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(list: &str, expected: &[u32]) {
        assert_eq!(ClassNames::imagenet().parse_list(list).unwrap(), expected);
    }

    #[test]
    fn lists_keep_order_and_repeats() {
        check("207", &[207]);
        check("207,360", &[207, 360]);
        check("360,207,360", &[360, 207, 360]);
        check("0-3", &[0, 1, 2, 3]);
        check(" 8 - 9 , 5-5,007", &[8, 9, 5, 7]);
        check("golden retriever", &[207]);
        check("999,Golden_Retriever,0-1,otter, 207", &[999, 207, 0, 1, 360, 207]);
        check("boar,red panda", &[342, 387]);
        check("all", &(0..1000).collect::<Vec<_>>());
        check("5,ALL", &[5].into_iter().chain(0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn few_and_unnamed_classes() {
        let parse = |count, list| ClassNames::unnamed(count).parse_list(list).unwrap();
        assert_eq!(parse(1, "all,0"), [0, 0]);
        assert_eq!(parse(10, "9,0-2"), [9, 0, 1, 2]);
        let digits = ClassNames::from_json(r#"["1","0","3-4"]"#).unwrap();
        assert_eq!(digits.parse_list("1").unwrap(), [1]); // the id, not the name of class 0
        assert!(digits.parse_list("3-4").is_err());
    }

    /// `expected` has one entry a line of the message.
    #[track_caller]
    fn check_refused(classes: &ClassNames, list: &str, expected: &[&str]) {
        let error = classes.parse_list(list).unwrap_err().to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{error}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn a_class_may_be_called_by_all_its_names() {
        let clothes = ClassNames::from_json(r#"["T-shirt/top", "Trouser", "top/hat"]"#).unwrap();
        assert_eq!(clothes.parse_list("T-shirt/top,t-shirt,hat / top").unwrap(), [0, 0, 2]);
        check_refused(&clothes, "top", &["`top` names 2 classes"]);
        check_refused(&clothes, "T-shirt/hat", &["no class is called `T-shirt/hat`"]);
        check_refused(&clothes, "T-shirt/", &["no class is called `T-shirt/`"]);
    }

    #[test]
    fn every_problem_is_reported() {
        let imagenet = ClassNames::imagenet();
        check_refused(&imagenet, "", &["item 1 of the class list is empty"]);
        check_refused(&imagenet, "1,,2,", &["item 2 ", "item 4 "]);
        check_refused(&imagenet, "1000", &["`1000` is out of range: ids go from 0 to 999"]);
        check_refused(&imagenet, "0-4294967296", &["`0-4294967296` is out of range"]);
        check_refused(&imagenet, "-1", &["`-1` is out of range"]);
        check_refused(&imagenet, "9-0", &["`9-0` runs backwards: write 0-9"]);
        check_refused(&imagenet, "crane", &["`crane` names 2 classes; give the id: 134 (crane); 517 (crane)"]);
        check_refused(&imagenet, "maillot", &["638 (maillot); 639 (maillot, tank suit)"]);
        check_refused(&imagenet, "goldn retriever", &["did you mean `golden retriever` (207)"]);
        check_refused(&imagenet, "zqxwvy", &["no class is called `zqxwvy`, nor anything like it"]);
        check_refused(&imagenet, "5,oter,1000,crane,6", &["`otter` (360)", "`1000`", "134"]);
        check_refused(
            &ClassNames::unnamed(10),
            "otter,10",
            &["carries no class names; give ids from 0 to 9", "from 0 to 9"],
        );
        check_refused(&ClassNames::unnamed(0), "all,0", &["this model has no classes", "this model has no classes"]);
    }

    proptest! {
        #[test]
        fn every_id_has_a_name_that_leads_back(id in 0_u32..1000) {
            let classes = ClassNames::imagenet();
            let found = classes.synonyms(id).iter().any(|name| classes.ids(name).contains(&id));
            prop_assert!(found);
            prop_assert_eq!(classes.parse_list(&id.to_string()).unwrap(), [id]);
        }

        #[test]
        fn nothing_typed_panics_or_leaves_the_range(list in "[0-9a-z, -]{0,12}|\\PC{0,12}") {
            if let Ok(ids) = ClassNames::unnamed(12).parse_list(&list) {
                prop_assert!(!ids.is_empty() && ids.iter().all(|&id| id < 12));
            }
            let _ = ClassNames::imagenet().parse_list(&list);
        }
    }
}
