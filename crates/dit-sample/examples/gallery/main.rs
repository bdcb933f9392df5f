//! Everything about samplers, guidance and editing that docs/ shows, made anew from a model:
//! `cargo run --release -p dit-sample --example gallery -- weights/demo docs`
//!
//! Pictures go to DOCS/images, the table of solvers to DOCS/samplers-table.md, its chart to DOCS/images/samplers.svg, the table
//! of classifier scales to DOCS/classifier-table.md.

mod classifier;
mod solvers;
mod strips;
mod studio;

use std::{env, path::PathBuf};

use studio::Studio;

/// Errors of every crate that takes part.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(weights), Some(docs)) = (args.next(), args.next()) else {
        return Err("usage: gallery WEIGHTS_DEMO DOCS".into());
    };
    let images = docs.join("images");
    std::fs::create_dir_all(&images)?;
    let studio = Studio::open(&weights)?;
    strips::make(&studio, &images)?;
    classifier::make(&studio, &weights, &docs)?;
    solvers::make(&studio, &docs)
}
