//! Any bytes, read as a safetensors file: an error, or tensors that can all be read and share no byte.

#![no_main]

use dit_weights::{SafetensorsFile, TensorSource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = match SafetensorsFile::from_bytes("fuzz.safetensors", bytes.to_vec()) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut total = 0;
    for (name, info) in file.infos() {
        let view = file.read(name).expect("what is listed can be read");
        assert_eq!(view.info(), *info);
        assert_eq!(Some(view.data().len()), info.byte_len());
        total += view.data().len();
    }
    assert!(total <= bytes.len(), "tensors overlap");
});
