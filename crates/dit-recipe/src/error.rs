use std::fmt;

/// What is wrong with a recipe, a model or a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe cannot be followed; everything that is wrong with it is listed.
    #[error("{}", list(.0))]
    Recipe(Vec<Problem>),

    /// The recipe and the data do not go together.
    #[error("the recipe does not fit the data: {}\n  help: {}", .0.iter().map(|key| &*key.problem).collect::<Vec<_>>().join("; "), fitted(.0))]
    Data(Vec<Misfit>),

    /// The recipe's geometry makes no network, or none for latents of the data's size.
    #[error(
        "the recipe's [model] makes no network: {0}\n  help: mend these keys of the recipe, or pass others by --set"
    )]
    Geometry(String),

    /// The run does not fit into memory.
    #[error("{problem}\n  help: {help}")]
    TooLarge {
        /// What it needs and what there is.
        problem: String,
        /// The keys that help.
        help: String,
    },
}

/// A key that does not fit the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong.
    pub problem: String,
    /// The override that mends it: `section.key=value`.
    pub mend: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What is wrong.
    pub problem: String,
    /// How it is mended, if that can be told.
    pub help: Option<String>,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    Line {
        /// Counted from 1.
        number: usize,
        /// What it says.
        text: String,
    },
    /// In an override, or in several: the text after the first `--set`.
    Override(String),
    /// In the recipe as a whole.
    Whole,
}

impl Problem {
    /// At the overrides of keys that it names, where there are some.
    pub(crate) fn placed(mut self, overrides: &[String]) -> Self {
        let told = format!("{} {}", self.problem, self.help.as_deref().unwrap_or_default());
        let names = |text: &&String| text.split_once('=').is_some_and(|(key, _)| told.contains(key.trim()));
        let named: Vec<&str> = overrides.iter().filter(names).map(String::as_str).collect();
        if self.place == Place::Whole && !named.is_empty() {
            self.place = Place::Override(named.join(" --set "));
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line { number, text } => write!(f, "line {number}: {}\n    {}", text.trim(), self.problem)?,
            Place::Override(text) => write!(f, "--set {text}\n    {}", self.problem)?,
            Place::Whole => f.write_str(&self.problem)?,
        }
        match &self.help {
            Some(help) => write!(f, "\n    help: {help}"),
            None => Ok(()),
        }
    }
}

/// How keys are made to fit, as a shell takes it.
fn fitted(keys: &[Misfit]) -> String {
    let overrides = keys.iter().map(|key| match key.mend.contains('[') {
        true => format!("--set '{}'", key.mend),
        false => format!("--set {}", key.mend),
    });
    let (these, overrides) = (if keys.len() == 1 { "this key" } else { "these keys" }, overrides.collect::<Vec<_>>());
    format!("pass {}, or leave {these} out of the recipe, to take what the data has", overrides.join(" "))
}

impl Error {
    /// Whether overrides bring about all that is wrong, so that no file is to be mended.
    pub fn is_of_overrides(&self) -> bool {
        let Self::Recipe(problems) = self else { return false };
        problems.iter().all(|problem| matches!(problem.place, Place::Override(_)))
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    match problems.len() {
        1 => format!("the recipe has a problem:{lines}"),
        count => format!("the recipe has {count} problems:{lines}"),
    }
}
