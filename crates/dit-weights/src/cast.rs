//! Element type conversion, round to nearest, ties to even.

use std::collections::BTreeMap;

use half::{bf16, f16};

use crate::{Dtype, Error, TensorInfo, TensorSource, TensorView};

/// A floating-point element: how it is read from and written to little-endian bytes, and rounded from an `f64` or `f32`.
trait Float: Copy {
    fn from_f64(value: f64) -> Self;
    fn from_f32(value: f32) -> Self;
    fn is_infinite(self) -> bool;
    fn push(self, out: &mut Vec<u8>);
}

macro_rules! float {
    ($type:ty, $from_f64:expr, $from_f32:expr) => {
        impl Float for $type {
            fn from_f64(value: f64) -> Self {
                $from_f64(value)
            }

            fn from_f32(value: f32) -> Self {
                $from_f32(value)
            }

            fn is_infinite(self) -> bool {
                <$type>::is_infinite(self)
            }

            fn push(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    };
}

float!(f64, |value: f64| value, f64::from);
float!(f32, |value: f64| value as f32, |value: f32| value);
float!(f16, |value: f64| f16::from_f32(round_to_odd(value)), f16::from_f32);
float!(bf16, |value: f64| bf16::from_f32(round_to_odd(value)), bf16::from_f32);

/// `value` as binary32, inexact ones with the last bit set, so that rounding once more equals rounding `value` itself
/// (Boldo & Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd").
/// `half`'s own conversions from `f64` drop the lower bits, which turns values just above a tie into ties.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let exact = f64::from(nearest);
    if exact == value || !value.is_finite() {
        return nearest;
    }
    let toward_zero = nearest.to_bits() - u32::from(exact.abs() > value.abs());
    f32::from_bits(toward_zero | 1)
}

/// `tensor` with elements of type `to`, each rounded once to the nearest, ties to even. Integers and booleans stay as they
/// are, and nothing becomes one. `name` is for messages.
///
/// # Errors
/// [`Error::OutOfRange`] where a finite value would become infinite; [`Error::IntegerTarget`] where floating-point numbers
/// were to become integers or booleans.
pub fn cast<'a>(name: &str, tensor: TensorView<'a>, to: Dtype) -> Result<TensorView<'a>, Error> {
    if tensor.dtype() == to || !tensor.dtype().is_float() {
        return Ok(tensor);
    }
    match to {
        Dtype::F64 => cast_to::<f64>(name, &tensor, to),
        Dtype::F32 => cast_to::<f32>(name, &tensor, to),
        Dtype::F16 => cast_to::<f16>(name, &tensor, to),
        Dtype::BF16 => cast_to::<bf16>(name, &tensor, to),
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool => {
            Err(Error::IntegerTarget { dtype: to })
        }
    }
}

fn cast_to<T: Float>(name: &str, tensor: &TensorView, to: Dtype) -> Result<TensorView<'static>, Error> {
    let mut out = Vec::with_capacity(tensor.numel() * to.size());
    let mut overflow = None;
    let mut put = |source: f64, rounded: T| {
        if rounded.is_infinite() && source.is_finite() {
            overflow.get_or_insert(source);
        }
        rounded.push(&mut out);
    };
    match tensor.dtype() {
        // From binary64 directly: rounding twice, through binary32, can end one step off.
        Dtype::F64 => {
            for &bytes in tensor.data().as_chunks().0 {
                let value = f64::from_le_bytes(bytes);
                put(value, T::from_f64(value));
            }
        }
        _ => {
            for value in tensor.to_f32()? {
                put(f64::from(value), T::from_f32(value));
            }
        }
    }
    if let Some(value) = overflow {
        return Err(Error::OutOfRange { name: name.to_owned(), value, dtype: to });
    }
    TensorView::new(to, tensor.shape().to_vec(), out)
}

/// Another source's tensors with the floating-point ones converted as they are read.
#[derive(Debug)]
pub struct CastSource<S> {
    inner: S,
    infos: BTreeMap<String, TensorInfo>,
}

impl<S: TensorSource> CastSource<S> {
    /// `inner` as `dtype`; integers and booleans stay as they are, and nothing becomes one: with a `dtype` that is not a
    /// floating-point type, all of `inner` stays as it is.
    pub fn new(inner: S, dtype: Dtype) -> Self {
        Self::with_exact(inner, dtype, &[])
    }

    /// `inner` as `dtype`, but the tensors named in `exact` never become narrower.
    pub fn with_exact(inner: S, dtype: Dtype, exact: &[&str]) -> Self {
        let mut infos = inner.infos().clone();
        for (name, info) in &mut infos {
            let keeps = dtype.size() < info.dtype.size() && exact.contains(&name.as_str());
            if info.dtype.is_float() && dtype.is_float() && !keeps {
                info.dtype = dtype;
            }
        }
        Self { inner, infos }
    }
}

impl<S: TensorSource> TensorSource for CastSource<S> {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let info = self.infos.get(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() })?;
        cast(name, self.inner.read(name)?, info.dtype)
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        self.inner.why_missing(name)
    }

    fn prefetch(&self, name: &str) {
        self.inner.prefetch(name);
    }

    fn release(&self, name: &str) {
        self.inner.release(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySource;

    #[track_caller]
    fn check(value: f64, to: Dtype, expected_bits: u16) {
        let tensor = TensorView::new(Dtype::F64, vec![1], value.to_le_bytes().to_vec()).unwrap();
        let cast = cast("w", tensor, to).unwrap();
        assert_eq!(cast.data(), expected_bits.to_le_bytes(), "{value} as {to}");
    }

    #[test]
    fn ties_go_to_even_and_binary64_is_rounded_once() {
        check(1.0 + 1.0 / 256.0, Dtype::BF16, 0x3f80); // half way between 0x3f80 and 0x3f81
        check(1.0 + 3.0 / 256.0, Dtype::BF16, 0x3f82);
        check(1.0 + 1.0 / 2048.0, Dtype::F16, 0x3c00);
        check(1.0 + 3.0 / 2048.0, Dtype::F16, 0x3c02);
        // Just above half way: binary32 would round it to half way, and then to even.
        check(1.0 + 1.0 / 256.0 + 1e-12, Dtype::BF16, 0x3f81);
        check(1.0 + 1.0 / 2048.0 + 1e-12, Dtype::F16, 0x3c01);
        check(-0.0, Dtype::BF16, 0x8000);
        check(f64::INFINITY, Dtype::F16, 0x7c00);
        check(5.960_464_477_539_063e-8, Dtype::F16, 0x0001); // the smallest subnormal
    }

    #[test]
    fn every_16_bit_value_survives_the_way_through_f32() {
        let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let tensor = TensorView::new(dtype, vec![1 << 16], bits.clone()).unwrap();
            let back = cast("w", cast("w", tensor, Dtype::F32).unwrap(), dtype).unwrap();
            for (before, after) in bits.as_chunks::<2>().0.iter().zip(back.data().as_chunks::<2>().0) {
                let is_nan = match dtype {
                    Dtype::F16 => f16::from_le_bytes(*before).is_nan() && f16::from_le_bytes(*after).is_nan(),
                    _ => bf16::from_le_bytes(*before).is_nan() && bf16::from_le_bytes(*after).is_nan(),
                };
                assert!(is_nan || before == after, "{dtype} {before:x?} became {after:x?}");
            }
        }
    }

    #[test]
    fn nothing_becomes_an_integer() {
        for to in Dtype::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
            let tensor = TensorView::from_f32(vec![1], &[1.0]).unwrap();
            let error = cast("w", tensor.clone(), to).unwrap_err();
            assert!(matches!(error, Error::IntegerTarget { dtype } if dtype == to), "{error}");
            let source = MemorySource::from_iter([("w", tensor.clone())]);
            let source = CastSource::new(source, to);
            assert_eq!(source.infos()["w"].dtype, Dtype::F32);
            assert_eq!(source.read("w").unwrap(), tensor);
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_by_name() {
        for (value, to, fits) in [
            (65504.0, Dtype::F16, true),
            (65519.9, Dtype::F16, true),
            (65520.0, Dtype::F16, false),
            (1e30, Dtype::BF16, true),
            (3.4e38, Dtype::BF16, false),
        ] {
            let result = cast("w", TensorView::from_f32(vec![1], &[value]).unwrap(), to);
            match result {
                Ok(_) => assert!(fits, "{value} as {to}"),
                Err(Error::OutOfRange { name, .. }) => assert!(!fits && name == "w", "{value} as {to}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
