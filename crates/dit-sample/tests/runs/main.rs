//! Runs of the pipeline, from a plan to files.

mod hashes;
mod requests;
mod support;
mod writing;
