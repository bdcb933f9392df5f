//! Any bytes, read as a PyTorch checkpoint and as the bare pickle of one: an error or a value, never a panic.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use dit_weights::{Error, Kind, TensorSource, TorchFile, Value};
use libfuzzer_sys::fuzz_target;

/// What the bare pickles refer to; the seeds are written for storages of this size.
static STORAGES: LazyLock<BTreeMap<String, Vec<u8>>> =
    LazyLock::new(|| (0..16).map(|key| (key.to_string(), vec![1; 48])).collect());

fuzz_target!(|bytes: &[u8]| {
    exercise(TorchFile::from_bytes("fuzz.pt", bytes.to_vec()));
    exercise(TorchFile::from_parts("fuzz.pkl", bytes, &STORAGES));
});

fn exercise(file: Result<TorchFile, Error>) {
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    walk(file.root());
    for path in file.state_dicts() {
        let Ok(dict) = file.state_dict(path) else { continue };
        for (name, info) in dict.infos() {
            let view = dict.read(name).expect("what is listed can be read");
            assert_eq!(view.info(), *info);
            assert_eq!(Some(view.data().len()), info.byte_len());
        }
    }
}

/// Looks at a bounded number of values, since a pickle may contain itself.
fn walk(root: Value<'_>) {
    let mut open = vec![root];
    for _ in 0..10_000 {
        let Some(value) = open.pop() else { return };
        if let Kind::Tensor(info) = value.kind() {
            assert!(info.byte_len().is_some());
        }
        open.extend(value.state());
        open.extend(value.arguments());
        open.extend(value.items().take(100));
        open.extend(value.entries().take(100).flat_map(|(key, value)| [key, value]));
    }
}
