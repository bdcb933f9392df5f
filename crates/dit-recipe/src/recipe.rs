use std::{collections::BTreeSet, ops::Deref};

use dit_config::{DitConfig, DitSpec, LatentSize, Numerics, Sigma, SigmaKind, Size, StandardModel};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{Error, Misfit, Place, Problem, Sections, check, section::Change, values::ModelName};

/// A recipe that can be followed: complete, and checked. Read its values as fields (it dereferences to [`Sections`]).
///
/// Invariants: the network is either a standard model or a whole geometry; every number is in its range; no key that was
/// given is without effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    sections: Sections,
}

impl Deref for Recipe {
    type Target = Sections;

    fn deref(&self) -> &Sections {
        &self.sections
    }
}

/// A key that was given, as `section.key`.
pub(crate) type Given = BTreeSet<(&'static str, &'static str)>;

/// What the data says of the network's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataShape {
    /// Latent height and width.
    pub latent: LatentSize,
    /// Latent channels.
    pub channels: usize,
    /// Classes.
    pub num_classes: usize,
}

/// A key whose value differs between two recipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As `section.key`.
    pub key: String,
    /// The value in the recipe asked; `not given` for an option that is not.
    pub before: String,
    /// The value in the other one.
    pub after: String,
    /// Whether a run may continue with the other value.
    pub may_change: bool,
}

impl Recipe {
    /// Reads a recipe, then the overrides, each `section.key=value` in the same language, strings without their quotes allowed.
    ///
    /// # Errors
    /// [`Error::Recipe`] lists everything that is wrong, with lines and near misses.
    pub fn from_toml(text: &str, overrides: &[String]) -> Result<Self, Error> {
        let reader = Reader::read(text, overrides)?;
        Self::resolve(reader.sections, &reader.given).map_err(|error| match error {
            Error::Recipe(problems) => {
                Error::Recipe(problems.into_iter().map(|problem| problem.placed(overrides)).collect())
            }
            other => other,
        })
    }

    /// What a text and its overrides would change of this recipe, be it one that can be followed or not: as
    /// [`differences`](Self::differences).
    ///
    /// # Errors
    /// [`Error::Recipe`] where they cannot be read.
    pub fn changes(&self, text: &str, overrides: &[String]) -> Result<Vec<Difference>, Error> {
        let Reader { mut sections, given, .. } = Reader::read(text, overrides)?;
        complete(&mut sections, &given);
        Ok(self.differences(&Self { sections }))
    }

    /// Checks values that a program has put together.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml).
    pub fn new(sections: Sections) -> Result<Self, Error> {
        Self::resolve(sections, &Given::new())
    }

    /// A changed copy, checked again.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml).
    pub fn with(&self, change: impl FnOnce(&mut Sections)) -> Result<Self, Error> {
        let mut sections = self.sections.clone();
        change(&mut sections);
        Self::new(sections)
    }

    fn resolve(mut sections: Sections, given: &Given) -> Result<Self, Error> {
        complete(&mut sections, given);
        let problems = check::problems(&sections, given);
        if problems.is_empty() { Ok(Self { sections }) } else { Err(Error::Recipe(problems)) }
    }

    /// The network for this data.
    ///
    /// # Errors
    /// [`Error::Data`] where the recipe names another latent size, other channels or fewer classes than the data has;
    /// [`Error::Geometry`] where the heads do not divide the width, or the patch the latent.
    pub fn model_config(&self, data: DataShape) -> Result<DitConfig, Error> {
        let model = &self.model;
        let mut misfits = Vec::new();
        let mut misfit = |key: &str, found: String, data: String, mend: String| {
            misfits.push(Misfit {
                problem: format!("model.{key} is {found}, the data{data}"),
                mend: format!("model.{key}={mend}"),
            });
        };
        if let Some(latent) = model.latent.filter(|latent| *latent != data.latent) {
            let LatentSize { height, width } = data.latent;
            misfit(
                "latent",
                latent.to_string(),
                format!("'s latents are {}", data.latent),
                format!("[{height},{width}]"),
            );
        }
        if let Some(channels) = model.channels.filter(|channels| *channels != data.channels) {
            misfit("channels", channels.to_string(), format!(" has {}", data.channels), data.channels.to_string());
        }
        if let Some(classes) = model.num_classes.filter(|classes| *classes < data.num_classes) {
            misfit(
                "num_classes",
                classes.to_string(),
                format!(" has {}", data.num_classes),
                data.num_classes.to_string(),
            );
        }
        if !misfits.is_empty() {
            return Err(Error::Data(misfits));
        }
        let standard = model.name.map(|ModelName(name)| name);
        let part =
            |given: Option<usize>, of: fn(StandardModel) -> usize| given.or(standard.map(of)).unwrap_or_default();
        DitConfig::new(DitSpec {
            block: model.block,
            hidden: part(model.hidden, |name| name.size.hidden()),
            depth: part(model.depth, |name| name.size.depth()),
            heads: part(model.heads, |name| name.size.heads()),
            patch: part(model.patch, |name| name.patch),
            mlp_ratio: model.mlp_ratio,
            in_channels: data.channels,
            latent: data.latent,
            num_classes: if model.unconditional { 1 } else { model.num_classes.unwrap_or(data.num_classes) },
            label_dropout: self.data.label_dropout,
            sigma: match self.diffusion.sigma {
                SigmaKind::Learned => Sigma::Learned,
                SigmaKind::FixedSmall | SigmaKind::FixedLarge => Sigma::Fixed,
            },
            numerics: Numerics::Original,
        })
        .map_err(|error| Error::Geometry(error.to_string()))
    }

    /// The whole recipe, itself a valid one: every key with its help.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (section, help) in Sections::SECTIONS {
            if !text.is_empty() {
                text.push('\n');
            }
            comment(&mut text, help);
            text.push_str(&format!("[{section}]\n"));
            for info in Sections::KEYS.iter().filter(|info| info.section == *section) {
                if let Some(value) = self.sections.get(section, info.key) {
                    comment(&mut text, info.help);
                    text.push_str(&format!("{} = {value}\n", info.key));
                }
            }
        }
        text
    }

    /// Every key in which `other` differs, in the order of the printed recipe.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let differing = Sections::KEYS.iter().filter_map(|info| {
            let (before, after) =
                (self.sections.get(info.section, info.key), other.sections.get(info.section, info.key));
            (before != after).then(|| Difference {
                key: format!("{}.{}", info.section, info.key),
                before: before.unwrap_or_else(|| "not given".to_owned()),
                after: after.unwrap_or_else(|| "not given".to_owned()),
                may_change: info.change == Change::Free && !self.is_bound(info.section, info.key),
            })
        });
        differing.collect()
    }

    /// Whether a key that may usually change decides this recipe's numbers: a cosine ends at the last step.
    fn is_bound(&self, section: &str, key: &str) -> bool {
        (section, key) == ("train", "steps") && self.optim.schedule == crate::LrSchedule::Cosine
    }
}

/// What follows from what was `given`.
fn complete(sections: &mut Sections, given: &Given) {
    let model = &mut sections.model;
    let geometry = [model.hidden, model.depth, model.heads, model.patch];
    if model.name.is_none() && geometry.iter().all(Option::is_none) {
        // What the original trains when nothing is said.
        model.name = Some(ModelName(StandardModel { size: Size::XL, patch: 2 }));
    }
    if model.unconditional {
        // Without labels none is dropped, and none guides.
        let unless_given = |section, key, value: &mut f64, of_unconditional| {
            if !given.contains(&(section, key)) {
                *value = of_unconditional;
            }
        };
        unless_given("data", "label_dropout", &mut sections.data.label_dropout, 0.0);
        unless_given("samples", "cfg_scale", &mut sections.samples.cfg_scale, 1.0);
        unless_given("eval", "cfg_scale", &mut sections.eval.cfg_scale, 1.0);
    }
}

fn comment(text: &mut String, help: &[&str]) {
    for line in help {
        text.push_str(&format!("#{line}\n"));
    }
}

struct Reader {
    sections: Sections,
    given: Given,
    problems: Vec<Problem>,
}

impl Reader {
    fn read(text: &str, overrides: &[String]) -> Result<Self, Error> {
        let mut reader = Self { sections: Sections::default(), given: Given::new(), problems: Vec::new() };
        reader.file(text);
        for text in overrides {
            reader.override_with(text);
        }
        if reader.problems.is_empty() { Ok(reader) } else { Err(Error::Recipe(reader.problems)) }
    }

    fn file(&mut self, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = error.span().map_or(Place::Whole, |span| line_at(text, span.start));
            self.problems.push(Problem { place, problem: error.message().to_owned(), help: None });
        }
        if self.problems.is_empty() {
            let place = |at: usize| line_at(text, at);
            self.sections_of(table.into_inner(), &place);
        }
    }

    fn sections_of(&mut self, table: DeTable<'_>, place: &dyn Fn(usize) -> Place) {
        for (name, value) in table {
            let at = name.span().start;
            let name = name.into_inner();
            let Some((section, _)) = Sections::SECTIONS.iter().find(|(section, _)| *section == name.as_ref()) else {
                self.unknown_section(&name, place(at));
                continue;
            };
            match value.into_inner() {
                DeValue::Table(keys) => self.keys_of(section, keys, place),
                other => self.problems.push(Problem {
                    place: place(at),
                    problem: format!("{section} is a section, found {}", other.type_str()),
                    help: Some(format!("write [{section}] and its keys below")),
                }),
            }
        }
    }

    fn keys_of(&mut self, section: &'static str, keys: DeTable<'_>, place: &dyn Fn(usize) -> Place) {
        for (key, value) in keys {
            let at = key.span().start;
            let key = key.into_inner();
            self.set(section, &key, value, place(at));
        }
    }

    fn set(&mut self, section: &'static str, key: &str, value: Spanned<DeValue<'_>>, place: Place) {
        match self.sections.set(section, key, value) {
            Some(Ok(())) => {
                let known = Sections::KEYS.iter().find(|info| (info.section, info.key) == (section, key));
                self.given.extend(known.map(|info| (info.section, info.key)));
            }
            Some(Err(error)) => {
                let problem = format!("{section}.{key}: {}", in_words(error.message()));
                self.problems.push(Problem { place, problem, help: value_help(section, key) });
            }
            None => self.unknown_key(section, key, place),
        }
    }

    fn override_with(&mut self, text: &str) {
        let place = Place::Override(text.to_owned());
        let Some((name, value)) = text.split_once('=') else {
            let help = Some("write --set section.key=value, such as --set optim.lr=2e-4".to_owned());
            self.problems.push(Problem { place, problem: "there is no = in it".to_owned(), help });
            return;
        };
        let (name, value) = (name.trim(), value.trim());
        let Some((section, key)) = name.split_once('.') else {
            let sections = Sections::KEYS.iter().filter(|info| info.key == name).map(|info| info.section);
            let help = sections.map(|section| format!("{section}.{name}")).collect::<Vec<_>>();
            let help = if help.is_empty() { None } else { Some(format!("did you mean {}?", help.join(" or "))) };
            self.problems.push(Problem { place, problem: "a key is written section.key".to_owned(), help });
            return;
        };
        let Some((section, _)) = Sections::SECTIONS.iter().find(|(known, _)| *known == section) else {
            self.unknown_section(section, place);
            return;
        };
        // A word without quotes is a string; anything else is as in a file.
        let line = format!("value = {value}");
        let quoted;
        let table = match DeTable::parse(&line) {
            Ok(table) => table,
            Err(error) => {
                let word = |c: char| c.is_alphanumeric() || "-_/. ".contains(c);
                quoted = format!("value = {}", toml::Value::from(value));
                match DeTable::parse(&quoted) {
                    Ok(table) if !value.is_empty() && value.chars().all(word) => table,
                    _ => {
                        self.problems.push(Problem { place, problem: error.message().to_owned(), help: None });
                        return;
                    }
                }
            }
        };
        if let Some((_, value)) = table.into_inner().into_iter().next() {
            self.set(section, key, value, place);
        }
    }

    fn unknown_section(&mut self, name: &str, place: Place) {
        let sections: Vec<&str> = Sections::SECTIONS.iter().map(|(section, _)| *section).collect();
        let near = nearest(name, sections.iter().copied());
        let moved = Sections::KEYS.iter().find(|info| info.key == name);
        let help = match (near, moved) {
            (_, Some(info)) => format!("{name} belongs under [{}]", info.section),
            (Some(near), None) => format!("did you mean {near}?"),
            (None, None) => format!("there are {}", sections.join(", ")),
        };
        self.problems.push(Problem { place, problem: format!("unknown section {name}"), help: Some(help) });
    }

    fn unknown_key(&mut self, section: &str, key: &str, place: Place) {
        let keys = || Sections::KEYS.iter().filter(|info| info.section == section).map(|info| info.key);
        let elsewhere = Sections::KEYS.iter().find(|info| info.key == key);
        let help = match (elsewhere, nearest(key, keys())) {
            (Some(info), _) => format!("{key} belongs under [{}]", info.section),
            (None, Some(near)) => format!("did you mean {near}?"),
            (None, None) => format!("[{section}] has {}", keys().collect::<Vec<_>>().join(", ")),
        };
        self.problems.push(Problem { place, problem: format!("unknown key {section}.{key}"), help: Some(help) });
    }
}

/// The key's documentation, which says what it takes.
fn value_help(section: &str, key: &str) -> Option<String> {
    let info = Sections::KEYS.iter().find(|info| (info.section, info.key) == (section, key))?;
    Some(info.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "))
}

/// What a deserializer says, with the names of Rust's types in the words of those who write recipes.
fn in_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let expected = match expected {
        "f64" => "a number",
        "u64" | "usize" => "a whole number, 0 or more",
        other => other,
    };
    format!("{found}expected {expected}")
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let initials: String = name.split('_').filter_map(|word| word.chars().next()).collect();
    let similarity = |known: &str| match known.contains(name) && name.len() >= 3 || known == initials {
        true => 1.0, // `warmup` is short for `warmup_steps`, `lr` for `learning_rate`
        false => strsim::normalized_damerau_levenshtein(name, known),
    };
    let near = known.map(|known| (similarity(known), known));
    near.filter(|(similarity, _)| *similarity >= 0.55).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

fn line_at(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    Place::Line { number, text: text.lines().nth(number - 1).unwrap_or_default().to_owned() }
}
