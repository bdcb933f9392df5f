use std::mem::MaybeUninit;

use dit_torch::grad_is_enabled;
use tch::{Device, Kind, Tensor};

/// A tensor's element as the kernels see it: stored as such, computed with in fp32.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    const KIND: Kind;

    fn to_f32(self) -> f32;
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

/// The upper half of an fp32 number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Bf16(pub u16);

impl Element for Bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// To the nearest, ties to even; written without branches, so that it vectorises.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Self(if value.is_nan() { 0x7fc0 } else { rounded as u16 })
    }
}

/// Whether the kernels can compute with `tensor`: on the CPU, of a kind they know.
pub(crate) fn is_readable(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && matches!(tensor.kind(), Kind::Float | Kind::BFloat16)
}

/// The values of a contiguous CPU tensor of kind `E`, row by row.
///
/// # Panics
/// If it is not one.
pub(crate) fn values<E: Element>(tensor: &Tensor) -> &[E] {
    assert!(tensor.device() == Device::Cpu && tensor.kind() == E::KIND && tensor.is_contiguous());
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: a contiguous tensor on the CPU holds `numel` elements of its kind from its data pointer on, for as long as it
    // lives. Nothing in this crate writes to a tensor that it was given.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<E>(), tensor.numel()) }
}

/// A new CPU tensor of `shape`, its elements unset, and where they are.
pub(crate) fn allocate<E: Element>(shape: &[i64]) -> (Tensor, *mut MaybeUninit<E>) {
    let tensor = Tensor::empty(shape, (E::KIND, Device::Cpu));
    let start = tensor.data_ptr().cast();
    (tensor, start)
}

/// Whether an operator on `tensors` must be one that libtorch can differentiate.
pub(crate) fn needs_gradient(tensors: &[&Tensor]) -> bool {
    grad_is_enabled() && tensors.iter().any(|tensor| tensor.requires_grad())
}
