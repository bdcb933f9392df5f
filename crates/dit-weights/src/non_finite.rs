//! Finding NaN and infinities in weights.

use rayon::prelude::*;

use crate::{Dtype, Error, TensorSource, TensorView};

/// Elements that a thread takes at once: fewer are not worth another thread.
const ELEMENTS_AT_ONCE: usize = 1 << 18;

/// Every tensor of `source` that holds NaN or infinities, by name, with how many. All cores take part.
///
/// # Errors
/// Whatever reading `source` meets.
pub fn find_non_finite(source: &dyn TensorSource) -> Result<Vec<(String, usize)>, Error> {
    let names: Vec<&String> = source.infos().iter().filter(|(_, info)| info.dtype.is_float()).map(|(n, _)| n).collect();
    let counts: Result<Vec<usize>, Error> = names
        .par_iter()
        .map(|name| {
            source.prefetch(name);
            let count = count_non_finite(&source.read(name)?);
            source.release(name);
            Ok(count)
        })
        .collect();
    let found = names.into_iter().zip(counts?).filter(|&(_, count)| count > 0);
    Ok(found.map(|(name, count)| (name.clone(), count)).collect())
}

/// How many elements of `tensor` are NaN or infinite: those whose exponent bits are all set.
/// All cores take part.
pub fn count_non_finite(tensor: &TensorView) -> usize {
    match tensor.dtype() {
        Dtype::F64 => count(tensor.data(), |bytes| u64::from_le_bytes(bytes) >> 52 & 0x7ff == 0x7ff),
        Dtype::F32 => count(tensor.data(), |bytes| u32::from_le_bytes(bytes) >> 23 & 0xff == 0xff),
        Dtype::F16 => count(tensor.data(), |bytes| u16::from_le_bytes(bytes) >> 10 & 0x1f == 0x1f),
        Dtype::BF16 => count(tensor.data(), |bytes| u16::from_le_bytes(bytes) >> 7 & 0xff == 0xff),
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool => 0,
    }
}

fn count<const N: usize>(data: &[u8], is_non_finite: impl Fn([u8; N]) -> bool + Sync) -> usize {
    let count = |part: &[[u8; N]]| part.iter().map(|&bytes| usize::from(is_non_finite(bytes))).sum::<usize>();
    match data.as_chunks().0 {
        small if small.len() <= ELEMENTS_AT_ONCE => count(small),
        large => large.par_chunks(ELEMENTS_AT_ONCE).map(count).sum(),
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::MemorySource;

    #[test]
    fn nan_and_infinities_are_counted_in_every_width() {
        let values = [0.0, -1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-30, -f64::NAN];
        let bytes = |f: &dyn Fn(f64) -> Vec<u8>| values.iter().flat_map(|&v| f(v)).collect::<Vec<u8>>();
        let view = |dtype, data: Vec<u8>| TensorView::new(dtype, vec![values.len()], data).unwrap();
        let source = MemorySource::from_iter([
            ("f64", view(Dtype::F64, bytes(&|v| v.to_le_bytes().to_vec()))),
            ("f32", view(Dtype::F32, bytes(&|v| (v as f32).to_le_bytes().to_vec()))),
            ("f16", view(Dtype::F16, bytes(&|v| f16::from_f64(v).to_le_bytes().to_vec()))),
            ("bf16", view(Dtype::BF16, bytes(&|v| bf16::from_f64(v).to_le_bytes().to_vec()))),
            ("i8", view(Dtype::I8, vec![0xff; values.len()])),
            ("fine", TensorView::from_f32(vec![3], &[f32::MAX, f32::MIN, f32::MIN_POSITIVE]).unwrap()),
        ]);
        let found = find_non_finite(&source).unwrap();
        let expected = ["bf16", "f16", "f32", "f64"].map(|name| (name.to_owned(), 4));
        assert_eq!(found, expected);
    }
}
