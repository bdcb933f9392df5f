use std::fmt;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why class names could not be read, or a list of classes not be resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The metadata is not a JSON array of strings.
    #[error("the class names are not a JSON array of strings, one a class")]
    Json(#[source] serde_json::Error),
    /// A class, or one of its synonyms, is an empty name.
    #[error("class {id} has an empty name: names are separated by commas, each with at least one letter")]
    EmptyName {
        /// The class.
        id: usize,
    },
    /// More classes than ids.
    #[error("{found} classes: a model has at most 4294967295 classes")]
    TooMany {
        /// How many names there are.
        found: usize,
    },
    /// The names belong to another number of classes than the model has.
    #[error("the checkpoint names {names} classes, but its label table has {classes}")]
    Count {
        /// How many are named.
        names: u32,
        /// How many the model has.
        classes: u32,
    },
    /// Something in the list names no class; everything wrong with it is here.
    #[error("{}", lines(.0))]
    List(Vec<Problem>),
}

/// One thing wrong with a list of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing between two commas, or nothing at all.
    Empty {
        /// Which item of the list, counted from 1.
        position: usize,
    },
    /// An id, or an end of a range, that the model does not have.
    OutOfRange {
        /// The item as typed.
        item: String,
        /// How many classes there are.
        classes: u32,
    },
    /// A range whose end comes before its start.
    Backwards {
        /// The item as typed.
        item: String,
        /// The range in the right order.
        forwards: String,
    },
    /// A name that no class has.
    Unknown {
        /// The item as typed.
        item: String,
        /// Names that are near, the nearest first, each with the ids that it names.
        near: Vec<(String, Vec<u32>)>,
    },
    /// A name that several classes have.
    Ambiguous {
        /// The item as typed.
        item: String,
        /// Each such class with all its names.
        classes: Vec<(u32, String)>,
    },
    /// A name, but this model's classes have none.
    NoNames {
        /// The item as typed.
        item: String,
        /// How many classes there are.
        classes: u32,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { position } => write!(
                f,
                "item {position} of the class list is empty: write ids, ranges and names with single commas, \
                 such as 207,0-9,golden retriever"
            ),
            Self::OutOfRange { item, classes: 0 } => {
                write!(f, "class `{item}`: this model has no classes")
            }
            Self::OutOfRange { item, classes } => {
                write!(f, "class `{item}` is out of range: ids go from 0 to {}", classes - 1)
            }
            Self::Backwards { item, forwards } => {
                write!(f, "class range `{item}` runs backwards: write {forwards}")
            }
            Self::Unknown { item, near } if near.is_empty() => {
                write!(f, "no class is called `{item}`, nor anything like it")
            }
            Self::Unknown { item, near } => {
                write!(f, "no class is called `{item}`; did you mean ")?;
                for (at, (name, ids)) in near.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}`{name}` ({})", joined(ids))?;
                }
                write!(f, "?")
            }
            Self::Ambiguous { item, classes } => {
                write!(f, "`{item}` names {} classes; give the id:", classes.len())?;
                for (at, (id, names)) in classes.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ";" };
                    write!(f, "{comma} {id} ({names})")?;
                }
                Ok(())
            }
            Self::NoNames { item, classes } => write!(
                f,
                "class `{item}`: the checkpoint carries no class names; give ids from 0 to {}",
                classes.saturating_sub(1)
            ),
        }
    }
}

fn joined(ids: &[u32]) -> String {
    let ids: Vec<_> = ids.iter().map(u32::to_string).collect();
    ids.join(", ")
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
