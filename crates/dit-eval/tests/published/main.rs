//! Against what the published Python packages compute; see `tests/fixtures/README.md`.

mod inception;
mod metrics;

use std::path::{Path, PathBuf};

use dit_weights::{SafetensorsFile, to_tensor};
use tch::{Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/evaluation").join(name)
}

fn tensor(file: &SafetensorsFile, name: &str) -> Tensor {
    to_tensor(file, name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// ‖a − b‖ / ‖b‖.
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((a - &b).norm() / b.norm()).double_value(&[])
}
