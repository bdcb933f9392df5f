//! Reading what `torch.save` writes: every kind of file in `tests/fixtures/torch` (its README tells how they were made),
//! files of other kinds, and files that someone tampered with.

mod files;
mod pickles;
mod tampered;
mod writing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dit_weights::{TensorSource, TorchFile};
use safetensors::SafeTensors;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn torch_fixture(name: &str) -> PathBuf {
    fixtures().join("torch").join(name)
}

#[track_caller]
fn open(name: &str) -> TorchFile {
    TorchFile::open(torch_fixture(name)).unwrap()
}

/// Name to element type, shape and bytes.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// The tensors whose names start with `prefix`, by an independent reader.
fn read_safetensors(path: &Path, prefix: &str) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?, view)))
        .map(|(name, view)| {
            let dtype = view.dtype().to_string().to_lowercase();
            (name.to_owned(), (dtype, view.shape().to_vec(), view.data().to_vec()))
        })
        .collect()
}

fn read_all(source: &dyn TensorSource) -> Tensors {
    let read = |name: &String| {
        let view = source.read(name).unwrap();
        assert_eq!(view.info(), source.infos()[name], "{name}");
        (view.dtype().name().to_owned(), view.shape().to_vec(), view.data().to_vec())
    };
    source.infos().keys().map(|name| (name.clone(), read(name))).collect()
}
