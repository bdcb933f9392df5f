//! The training loop as a library.
#![deny(missing_docs)]
