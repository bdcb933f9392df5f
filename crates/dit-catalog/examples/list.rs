//! Lists the known checkpoints and what is installed.
//!
//! `cargo run -p dit-catalog --example list`

use dit_catalog::{Catalog, WeightsDir};

fn main() -> Result<(), dit_catalog::Error> {
    let weights = WeightsDir::discover()?;
    let catalog = Catalog::of(&weights)?;
    for entry in catalog.entries() {
        let state = match catalog.installed(entry.name(), &weights) {
            Ok(path) => path.display().to_string(),
            Err(_) => "missing".to_owned(),
        };
        println!("{:<18} {:<4} {:<18} {state}", entry.name(), entry.kind(), entry.license());
    }
    println!("sampled from by default: {}", catalog.default_checkpoint(&weights)?.name());
    Ok(())
}
