//! What every checkpoint format offers: named tensors, described at once and read one at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};

use crate::{Dtype, Error};

/// A tensor's element type and shape, without its values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// The number of elements; `None` where it does not fit `usize`.
    pub fn numel(&self) -> Option<usize> {
        numel(&self.shape)
    }

    /// The number of bytes of the values; `None` where it does not fit `usize`.
    pub fn byte_len(&self) -> Option<usize> {
        self.numel()?.checked_mul(self.dtype.size())
    }
}

/// The product of `shape`, from the outermost extent on; `None` where it leaves `usize` on the way, though a zero follow. So
/// PyTorch and the readers of safetensors have it: a tensor that exists here can be written for them.
pub(crate) fn numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// A tensor's values: contiguous, row-major, little-endian. Borrowed where the file is memory-mapped and holds them so.
///
/// The bytes need not be aligned to the element's size.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorView<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    // Invariant: data.len() == product(shape) · dtype.size().
    data: Cow<'a, [u8]>,
}

impl<'a> TensorView<'a> {
    /// A tensor over `data`.
    ///
    /// # Errors
    /// [`Error::DataLength`] unless `data` holds exactly the elements that `shape` asks for.
    pub fn new(dtype: Dtype, shape: Vec<usize>, data: impl Into<Cow<'a, [u8]>>) -> Result<Self, Error> {
        let data = data.into();
        let expected = numel(&shape).and_then(|n| n.checked_mul(dtype.size()));
        if expected != Some(data.len()) {
            return Err(Error::DataLength { dtype, shape, actual: data.len() });
        }
        Ok(Self { dtype, shape, data })
    }

    /// A tensor of `f32` values.
    ///
    /// # Errors
    /// [`Error::DataLength`] unless there are exactly as many values as `shape` asks for.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<TensorView<'static>, Error> {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        TensorView::new(Dtype::F32, shape, data)
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Extents, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// The values' bytes: contiguous, row-major, little-endian, at any alignment.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The values' bytes, still borrowed where they were.
    pub fn into_data(self) -> Cow<'a, [u8]> {
        self.data
    }

    /// Element type and shape.
    pub fn info(&self) -> TensorInfo {
        TensorInfo { dtype: self.dtype, shape: self.shape.clone() }
    }

    /// The values of a floating-point tensor as `f32` (`f64` rounds to nearest).
    ///
    /// # Errors
    /// [`Error::NotFloat`] for integers and booleans.
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        Ok(match self.dtype {
            Dtype::F64 => self.map_elements(|b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => self.map_elements(f32::from_le_bytes),
            Dtype::F16 => self.map_elements(|b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.map_elements(|b| bf16::from_le_bytes(b).to_f32()),
            Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool => {
                return Err(Error::NotFloat { dtype: self.dtype });
            }
        })
    }

    fn map_elements<const N: usize, T>(&self, f: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (elements, _) = self.data.as_chunks::<N>();
        elements.iter().map(|&b| f(b)).collect()
    }
}

/// Named tensors, described at once and read one at a time.
///
/// Implemented by the readers of each file format, and by the views that rename, split or convert tensors of another source.
pub trait TensorSource: Send + Sync {
    /// Every tensor's name, element type and shape.
    fn infos(&self) -> &BTreeMap<String, TensorInfo>;

    /// The values of one tensor.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`] for a name that is not in [`infos`](Self::infos); else whatever reading the file meets.
    fn read(&self, name: &str) -> Result<TensorView<'_>, Error>;

    /// Why `name`, which is not in [`infos`](Self::infos), cannot be read though the file has something of that name:
    /// in a PyTorch pickle, for example, an object of a Python class that is never executed. `None` where the file has nothing there.
    fn why_missing(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// A hint that all values of `name` are about to be read, and then probably those that follow it in its file: a mapped file's
    /// pages are asked for from the disk together. For whoever reads a file whole.
    fn prefetch(&self, name: &str) {
        let _ = name;
    }

    /// A hint that the values of `name` are not needed for now: a mapped file's pages may leave memory. Views of it stay
    /// valid, and reading it again works as before. This is what keeps a conversion far below the file's size.
    fn release(&self, name: &str) {
        let _ = name;
    }
}

impl<S: TensorSource + ?Sized> TensorSource for &S {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        (**self).infos()
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        (**self).read(name)
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        (**self).why_missing(name)
    }

    fn prefetch(&self, name: &str) {
        (**self).prefetch(name);
    }

    fn release(&self, name: &str) {
        (**self).release(name);
    }
}

impl<S: TensorSource + ?Sized> TensorSource for Box<S> {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        (**self).infos()
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        (**self).read(name)
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        (**self).why_missing(name)
    }

    fn prefetch(&self, name: &str) {
        (**self).prefetch(name);
    }

    fn release(&self, name: &str) {
        (**self).release(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dtype: Dtype, bytes: &[u8], expected: &[f32]) {
        let view = TensorView::new(dtype, vec![expected.len()], bytes).unwrap();
        assert_eq!(view.to_f32().unwrap(), expected);
        assert_eq!(view.numel(), expected.len());
    }

    #[test]
    fn floats_of_every_width_become_f32() {
        check(Dtype::F64, &1.5f64.to_le_bytes(), &[1.5]);
        check(Dtype::F32, &(-2.25f32).to_le_bytes(), &[-2.25]);
        check(Dtype::F16, &[0x00, 0x3c, 0x00, 0xc0], &[1.0, -2.0]);
        check(Dtype::BF16, &[0x80, 0x3f, 0x00, 0xc0], &[1.0, -2.0]);
        check(Dtype::F32, &[], &[]);
    }

    #[test]
    fn integers_are_not_read_as_floats() {
        for dtype in Dtype::ALL.into_iter().filter(|d| !d.is_float()) {
            let bytes = vec![0; dtype.size()];
            let view = TensorView::new(dtype, vec![1], bytes).unwrap();
            assert!(matches!(view.to_f32(), Err(Error::NotFloat { .. })));
        }
    }

    #[test]
    fn a_view_holds_exactly_what_its_shape_asks_for() {
        for (shape, len) in [
            (vec![2, 3], 23),
            (vec![2, 3], 25),
            (vec![], 0),
            (vec![0], 4),
            (vec![usize::MAX, usize::MAX], 4),
            (vec![usize::MAX / 2], 4),
            (vec![usize::MAX, usize::MAX, 0], 0),
        ] {
            let error = TensorView::new(Dtype::F32, shape.clone(), vec![0; len]).unwrap_err();
            assert!(matches!(error, Error::DataLength { .. }), "{shape:?}: {error}");
        }
        assert!(TensorView::new(Dtype::F32, vec![0, usize::MAX, usize::MAX], vec![]).is_ok());
        assert!(TensorView::new(Dtype::F32, vec![usize::MAX, 0], vec![]).is_ok());
        assert!(TensorView::new(Dtype::F32, vec![], vec![0; 4]).is_ok());
    }
}
