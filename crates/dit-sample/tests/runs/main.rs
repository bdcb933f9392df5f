//! Runs of the pipeline, from a plan to files.

mod hashes;
mod support;
mod writing;
