use std::fmt;

/// What is wrong with a recipe, a model or a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe cannot be followed; everything that is wrong with it is listed.
    #[error("{}", list(.0))]
    Recipe(Vec<Problem>),

    /// The recipe and the data do not go together.
    #[error("the recipe does not fit the data: {}\n  help: leave these keys out, and they are taken from the data", .0.join("; "))]
    Data(Vec<String>),

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
    /// In an override: the text after `--set`.
    Override(String),
    /// In the recipe as a whole.
    Whole,
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

fn list(problems: &[Problem]) -> String {
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    match problems.len() {
        1 => format!("the recipe has a problem:{lines}"),
        count => format!("the recipe has {count} problems:{lines}"),
    }
}
