mod hashes;
mod support;
mod writing;
