//! Tensors over storages: shape and strides, checked once, gathered when read.

use std::borrow::Cow;
use std::ops::Range;

use super::value::StorageNode;
use crate::source::numel;
use crate::{Dtype, Error, TensorInfo, TensorView};

/// PyTorch's own limit.
const MAX_RANK: usize = 64;

/// An expanded tensor (stride 0) or overlapping windows are larger than their storage; read, they take real memory.
/// What legitimate files hold of that kind is small. A tensor may be as large as its storage or this, whichever is more.
const MAX_EXPANDED_BYTES: usize = 256 << 20;

/// A tensor as PyTorch describes it: a strided window on a storage.
#[derive(Debug)]
pub(super) struct StridedTensor {
    info: TensorInfo,
    /// Per dimension, in elements; 0 where the extent is 1 or 0, because no index ever steps there.
    strides: Vec<usize>,
    /// From the first element to the end of the last, in the file.
    /// Invariant: within the file, and every index of `info.shape` under `strides` lies within.
    bytes: Range<usize>,
}

impl StridedTensor {
    /// A window on `storage`, `offset` elements from its start.
    ///
    /// # Errors
    /// A description of what is wrong: the window does not lie within the storage, or is absurd.
    pub(super) fn new(
        storage: &StorageNode,
        dtype: Dtype,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, String> {
        if shape.len() != strides.len() {
            return Err(format!("a tensor has {} extents but {} strides", shape.len(), strides.len()));
        }
        if shape.len() > MAX_RANK {
            return Err(format!("a tensor has {} dimensions; at most {MAX_RANK} are possible", shape.len()));
        }
        let size = dtype.size();
        let too_large = || format!("a tensor of shape {shape:?} is too large");
        let byte_len = numel(&shape).and_then(|n| n.checked_mul(size)).ok_or_else(too_large)?;
        let outside = || {
            format!(
                "a tensor of shape {shape:?}, strides {strides:?}, offset {offset} does not lie within its storage of {} bytes",
                storage.bytes.len()
            )
        };
        let (start, end) = match byte_len {
            // Slices without elements may begin anywhere, even behind their storage.
            0 => (0, 0),
            _ => window(offset, &shape, &strides, size).ok_or_else(outside)?,
        };
        if end > storage.bytes.len() {
            return Err(outside());
        }
        if byte_len > storage.bytes.len().max(MAX_EXPANDED_BYTES) {
            return Err(format!(
                "a tensor of shape {shape:?} expands its storage of {} bytes to {byte_len}",
                storage.bytes.len()
            ));
        }
        let strides = shape.iter().zip(strides).map(|(&extent, stride)| if extent > 1 { stride } else { 0 }).collect();
        Ok(Self {
            bytes: storage.bytes.start + start..storage.bytes.start + end,
            info: TensorInfo { dtype, shape },
            strides,
        })
    }

    pub(super) fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// The part of the file that holds the values.
    pub(super) fn bytes(&self) -> Range<usize> {
        self.bytes.clone()
    }

    /// The values: borrowed from `file` where they lie contiguous there, else gathered.
    pub(super) fn view<'f>(&self, file: &'f [u8]) -> Result<TensorView<'f>, Error> {
        let bytes = &file[self.bytes()];
        let data = if self.is_contiguous() {
            Cow::Borrowed(bytes)
        } else {
            Cow::Owned(match self.info.dtype.size() {
                1 => self.gather::<1>(bytes),
                2 => self.gather::<2>(bytes),
                4 => self.gather::<4>(bytes),
                _ => self.gather::<8>(bytes),
            })
        };
        TensorView::new(self.info.dtype, self.info.shape.clone(), data)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        let dims = self.info.shape.iter().zip(&self.strides);
        self.bytes.is_empty()
            || dims.rev().all(|(&extent, &stride)| {
                let fits = extent <= 1 || stride == expected;
                expected *= extent;
                fits
            })
    }

    /// Row-major copy of elements of `N` bytes. For tensors that have elements and are not contiguous: of rank 1 at least.
    fn gather<const N: usize>(&self, bytes: &[u8]) -> Vec<u8> {
        let (elements, _) = bytes.as_chunks::<N>();
        let numel = self.info.shape.iter().product::<usize>();
        let mut out = Vec::with_capacity(numel * N);
        let rank = self.info.shape.len();
        let mut index = vec![0; rank];
        let mut at = 0;
        for _ in 0..numel {
            out.extend_from_slice(&elements[at]);
            // To the next index, the last dimension fastest.
            for dim in (0..rank).rev() {
                index[dim] += 1;
                at += self.strides[dim];
                if index[dim] < self.info.shape[dim] {
                    break;
                }
                at -= self.strides[dim] * self.info.shape[dim];
                index[dim] = 0;
            }
        }
        out
    }
}

/// From the first byte to the end of the last, for a tensor that has elements.
fn window(offset: usize, shape: &[usize], strides: &[usize], size: usize) -> Option<(usize, usize)> {
    let mut last = offset;
    for (&extent, &stride) in shape.iter().zip(strides) {
        last = last.checked_add(extent.checked_sub(1)?.checked_mul(stride)?)?;
    }
    let end = last.checked_add(1)?.checked_mul(size)?;
    // No overflow: `offset` is at most `last`.
    Some((offset * size, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(len: usize) -> StorageNode {
        StorageNode { dtype: Some(Dtype::U8), bytes: 10..10 + len }
    }

    #[track_caller]
    fn check(offset: usize, shape: &[usize], strides: &[usize], expected: &[u8], borrowed: bool) {
        let file: Vec<u8> = (0..=255).collect();
        let tensor = StridedTensor::new(&storage(24), Dtype::U8, offset, shape.to_vec(), strides.to_vec()).unwrap();
        let view = tensor.view(&file).unwrap();
        assert_eq!(view.shape(), shape);
        assert_eq!(view.data(), expected);
        assert_eq!(matches!(view.into_data(), Cow::Borrowed(_)), borrowed, "borrowed");
    }

    #[test]
    fn windows_read_row_major() {
        check(0, &[2, 3], &[3, 1], &[10, 11, 12, 13, 14, 15], true);
        check(2, &[3], &[1], &[12, 13, 14], true);
        check(0, &[], &[], &[10], true);
        check(23, &[], &[], &[33], true);
        // Strides of extents of one mean nothing; nor do any where there are no elements.
        check(0, &[1, 3], &[77, 1], &[10, 11, 12], true);
        check(3, &[0, 5], &[5, 1], &[], true);
        check(24, &[0], &[9], &[], true);
        check(usize::MAX, &[2, 0], &[usize::MAX, 1], &[], true);
        // Transposed, every second, expanded, overlapping.
        check(0, &[3, 2], &[1, 3], &[10, 13, 11, 14, 12, 15], false);
        check(1, &[3], &[2], &[11, 13, 15], false);
        check(4, &[2, 2], &[0, 1], &[14, 15, 14, 15], false);
        check(5, &[3], &[0], &[15, 15, 15], false);
        check(0, &[3, 2], &[1, 1], &[10, 11, 11, 12, 12, 13], false);
        check(
            0,
            &[2, 3, 4],
            &[1, 8, 2],
            &[10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33],
            false,
        );
    }

    #[test]
    fn windows_beyond_the_storage_are_refused() {
        let huge = usize::MAX / 2;
        for (offset, shape, strides) in [
            (0, vec![25], vec![1]),
            (1, vec![24], vec![1]),
            (24, vec![], vec![]),
            (0, vec![2], vec![24]),
            (0, vec![2, 2], vec![huge, huge]),
            (0, vec![huge, huge], vec![0, 0]),
            (0, vec![3], vec![huge]),
            (usize::MAX, vec![1], vec![1]),
            (0, vec![2], vec![1, 1]),
            (0, vec![1; 65], vec![1; 65]),
            // Fits the address space, but not a sane memory.
            (0, vec![MAX_EXPANDED_BYTES + 1], vec![0]),
            (0, vec![1 << 30, 1 << 30], vec![0, 0]),
        ] {
            let result = StridedTensor::new(&storage(24), Dtype::U8, offset, shape.clone(), strides.clone());
            assert!(result.is_err(), "{offset} {shape:?} {strides:?}");
        }
    }
}
