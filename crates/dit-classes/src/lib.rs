//! Class names of a class-conditional model: what people type, and which ids it means.
//!
//! [`ClassNames`] holds the names of each class id, several where there are synonyms. They come from the checkpoint's
//! metadata ([`ClassNames::of_checkpoint`]), from the built-in list of ImageNet's 1000 ([`ClassNames::imagenet`]), or are
//! not known at all ([`ClassNames::unnamed`]), in which case only ids can be typed. [`ClassNames::parse_list`] resolves
//! a list such as `207,360-362,golden retriever` and reports everything wrong with it at once.
//!
//! # What it never does
//! It opens no file, guesses between no two classes of the same name, and never reorders or merges what was asked for.
//!
//! ```
//! use dit_classes::ClassNames;
//!
//! let classes = ClassNames::imagenet();
//! assert_eq!(classes.parse_list("207, 0-2, Golden Retriever, 207")?, [207, 0, 1, 2, 207, 207]);
//! assert_eq!(classes.name(88), Some("macaw"));
//!
//! let error = classes.parse_list("goldn retriever,1200").unwrap_err().to_string();
//! assert!(error.contains("golden retriever") && error.contains("0 to 999"));
//! # Ok::<(), dit_classes::Error>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod error;
mod list;
mod names;
mod suggest;

pub use error::{Error, Problem, Result};
pub use names::ClassNames;
