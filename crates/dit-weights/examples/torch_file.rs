//! What a PyTorch checkpoint holds: `cargo run -p dit-weights --example torch_file -- FILE.pt [COPY.pt]`.
//!
//! Lists its state dicts and their tensors; with a second path, writes the first state dict there, contiguous.

use std::path::Path;

use dit_weights::{Error, TensorSource, TorchFile, torch_save};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args_os().skip(1);
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/torch/training-protocol-2.pt");
    let file = TorchFile::open(arguments.next().unwrap_or(default.into()))?;
    println!("{}: {:?}", file.path().display(), file.root());
    for (key, value) in file.root().entries() {
        println!("  {key:?}: {value:?}");
    }
    for path in file.state_dicts() {
        let dict = file.state_dict(path)?;
        let bytes: usize = dict.infos().values().filter_map(|info| info.byte_len()).sum();
        println!("state dict {path:?}: {} tensors, {bytes} bytes", dict.infos().len());
    }
    let first = file.state_dicts().next();
    if let (Some(path), Some(copy)) = (first, arguments.next()) {
        let dict = file.state_dict(path)?;
        // Each tensor's pages are let go once it is written, so that a copy takes little memory.
        let mut written: Option<&str> = None;
        let tensors = dict.infos().keys().map(|name| {
            if let Some(before) = written.replace(name) {
                dict.release(before);
            }
            Ok((name.clone(), dict.read(name)?))
        });
        torch_save::write_state_dict(&copy, tensors)?;
        println!("wrote {}", Path::new(&copy).display());
    }
    Ok(())
}
