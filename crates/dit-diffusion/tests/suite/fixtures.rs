//! Reference tensors, and how close is close.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

/// A file of `tests/fixtures/diffusion`.
pub struct Fixture(Vec<u8>);

impl Fixture {
    pub fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/diffusion").join(name);
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("fixtures are whole")
    }

    pub fn names(&self) -> Vec<String> {
        self.file().names().into_iter().map(str::to_owned).collect()
    }

    /// A tensor of the file. Built from a slice, whose length torch checks against the shape.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Tensor {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        let flat = match view.dtype() {
            Dtype::F32 => Tensor::from_slice(&elements(view.data(), f32::from_le_bytes)),
            Dtype::F64 => Tensor::from_slice(&elements(view.data(), f64::from_le_bytes)),
            Dtype::I64 => Tensor::from_slice(&elements(view.data(), i64::from_le_bytes)),
            Dtype::U8 => Tensor::from_slice(view.data()),
            other => panic!("{name} holds {other:?}"),
        };
        flat.view(&shape[..])
    }

    #[track_caller]
    pub fn f64s(&self, name: &str) -> Vec<f64> {
        Vec::try_from(self.tensor(name)).expect("f64, one axis")
    }

    #[track_caller]
    pub fn i64s(&self, name: &str) -> Vec<i64> {
        Vec::try_from(self.tensor(name)).expect("int64, one axis")
    }
}

fn elements<const BYTES: usize, T>(data: &[u8], read: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    let (chunks, rest) = data.as_chunks::<BYTES>();
    assert!(rest.is_empty(), "a whole number of elements");
    chunks.iter().map(|&bytes| read(bytes)).collect()
}

/// ‖a − b‖/‖b‖; infinite where the shapes differ, so that no broadcast can hide a mistake.
pub fn relative(ours: &Tensor, reference: &Tensor) -> f64 {
    if ours.size() != reference.size() {
        return f64::INFINITY;
    }
    let (ours, reference) = (ours.to_kind(Kind::Double), reference.to_kind(Kind::Double));
    let norm = |x: &Tensor| x.square().sum(Kind::Double).sqrt().double_value(&[]);
    norm(&(&ours - &reference)) / norm(&reference).max(f64::MIN_POSITIVE)
}

#[track_caller]
pub fn close(what: &str, ours: &Tensor, reference: &Tensor, tolerance: f64) {
    let error = relative(ours, reference);
    // Written so that NaN fails.
    assert!(
        error <= tolerance,
        "{what}: {error:.2e} apart, allowed {tolerance:.0e} ({:?}, {:?})",
        ours.size(),
        reference.size()
    );
}
