//! Resolves a list of ImageNet classes.
//!
//! `cargo run -p dit-classes --example lookup -- "207, 0-2, golden retriever"`

use dit_classes::ClassNames;

fn main() -> Result<(), dit_classes::Error> {
    let list = std::env::args().nth(1).unwrap_or_else(|| "207, 0-2, golden retriever".into());
    let classes = ClassNames::imagenet();
    for id in classes.parse_list(&list)? {
        println!("{id:>4} {}", classes.synonyms(id).join(", "));
    }
    Ok(())
}
