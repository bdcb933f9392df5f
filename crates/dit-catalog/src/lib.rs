//! The catalogue of known checkpoints: from a name to files.
//!
//! `weights/manifest.json` lists checkpoints by name: where their files come from, how large they are and what they hash
//! to, under which licence, which VAE goes with which DiT. [`Catalog`] is that file, read and checked as a whole; it is
//! also built into the program, so that a binary works far from the repository. [`WeightsDir`] is the folder in which
//! checkpoints lie, and [`Catalog::installed`] tells which path to open, or the command that brings what is missing.
//!
//! # Where a checkpoint lies
//! | | downloaded (its files have urls) | part of the repository (no urls) |
//! |---|---|---|
//! | `dit` | `DIR/NAME.safetensors` | `DIR/` and the file's path |
//! | `features` | `DIR/` and the file's name, as published | `DIR/` and the file's path |
//! | `vae` | `DIR/NAME/{config.json,diffusion_pytorch_model.safetensors}` | `DIR/` and the folder of its `config.json` |
//!
//! # What it never does
//! It downloads nothing, opens no weights, and computes no hash: those are the jobs of `dit-fetch` and `dit-weights`.
//!
//! ```
//! use dit_catalog::{Catalog, WeightsDir};
//!
//! let catalog = Catalog::builtin()?;
//! let entry = catalog.get("dit-xl-2-256")?;
//! assert_eq!(entry.pairs_with(), Some("sd-vae-ft-ema"));
//!
//! let empty = WeightsDir::at("/nowhere");
//! let error = catalog.installed("dit-xl-2-256", &empty).unwrap_err().to_string();
//! assert!(error.contains("cargo xtask fetch-weights dit-xl-2-256 --dir /nowhere"));
//! # Ok::<(), dit_catalog::Error>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod catalog;
mod entry;
mod error;
mod installed;
mod manifest;
mod weights_dir;

pub use catalog::Catalog;
pub use entry::{CatalogFile, DitHints, Entry, Kind};
pub use error::{Error, Result};
pub use installed::{DEMO, PREFERRED};
pub use weights_dir::{MANIFEST, WEIGHTS_DIR_VARIABLE, WeightsDir};
