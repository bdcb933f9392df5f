//! What of the catalogue is in a weights folder: `cargo run -p dit-fetch --example state_of_weights [DIR]`.

use std::path::PathBuf;

use dit_catalog::Catalog;
use dit_fetch::{list, table};

fn main() -> Result<(), dit_catalog::Error> {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("weights"), PathBuf::from);
    print!("{}", table(&list(&Catalog::builtin()?, &dir)));
    Ok(())
}
