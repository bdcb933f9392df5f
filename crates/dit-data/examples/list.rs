//! Lists a data set: `cargo run -p dit-data --example list -- PATH`.

use std::path::Path;

use dit_data::Source;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: list PATH")?;
    let source = Source::open(Path::new(&path))?;
    println!("{}: {} records, {} classes", source.kind(), source.len(), source.class_names().len());
    println!("fingerprint {}", source.fingerprint());
    const SHOWN: usize = 10;
    for index in 0..source.len().min(SHOWN) {
        let record = source.record(index);
        let bytes = source.read(index)?.len();
        println!(
            "{:>8}  {}  {} ({bytes} bytes)",
            record.label,
            source.class_names()[record.label as usize],
            record.key
        );
    }
    if source.len() > SHOWN {
        println!("         and {} more", source.len() - SHOWN);
    }
    Ok(())
}
