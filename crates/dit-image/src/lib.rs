//! Pictures on disk: what a sampler leaves behind.
//!
//! - [`Picture`]: 8-bit RGB, quantised from a decoder's output exactly as the published FID sampling does;
//! - [`grid`]: many pictures as one sheet;
//! - [`write_png`] and [`read_recipe`]: PNG files that carry the recipe that made them;
//! - [`write_animation`]: pictures that follow one another as an animated PNG;
//! - [`NpzWriter`]: the `arr_0` archive that FID evaluators read, streamed, of any size.
//!
//! Every file appears whole or not at all: it is written beside its final place, synchronised and renamed.
//! The bytes depend on the arguments alone, never on the clock or the machine's name.
//!
//! # What it never does
//! It links no libtorch, holds no tensor, prints nothing, creates no folder, and
//! does not interpret a recipe: to this crate a recipe is text.
//!
//! ```
//! use dit_image::{Caption, GRID_COLUMNS, Picture, grid, read_recipe, write_png};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("sheet.png");
//!
//! let black = Picture::from_chw(&[-1.0; 3 * 8 * 8], 8, 8)?; // (3, 8, 8)
//! let white = Picture::from_chw(&[1.0; 3 * 8 * 8], 8, 8)?;
//! let sheet = grid(&[black, white], GRID_COLUMNS)?;
//!
//! write_png(&path, &sheet, &Caption::default().with_recipe(r#"{"seed":0}"#))?;
//! assert_eq!(read_recipe(&path)?, r#"{"seed":0}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod animation;
mod error;
mod grid;
mod npz;
mod picture;
mod png_file;
mod recipe;

pub use animation::write_animation;
pub use error::{Error, Result};
pub use grid::{GRID_COLUMNS, GRID_PADDING, grid};
pub use npz::NpzWriter;
pub use picture::{Picture, quantize};
pub use png_file::{Caption, read_png, write_png};
pub use recipe::{RECIPE_KEYWORD, RECIPE_LIMIT, read_recipe};
