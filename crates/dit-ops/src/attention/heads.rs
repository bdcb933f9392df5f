//! Heads, how threads share them, and with which instructions each is computed.

use std::ops::Range;

use tch::{Kind, Tensor};

#[cfg(target_arch = "aarch64")]
use super::flash::Neon;
#[cfg(target_arch = "x86_64")]
use super::flash::{Avx2, Avx512, Avx512Pairs};
use super::{Shape, flash};
use crate::{element::Bf16, parallel};

/// Fewest queries of a head that are dealt out by themselves.
const FEWEST_QUERIES: usize = 96;

/// One head of one sample.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub shape: Shape,
    pub sample: usize,
    pub number: usize,
}

impl Head {
    /// The head at place `index` among all of them.
    pub(crate) fn at(shape: Shape, index: usize) -> Self {
        Self { shape, sample: index / shape.heads, number: index % shape.heads }
    }

    /// What scores are multiplied by: 1 / √(values of a head).
    pub(crate) fn scale(self) -> f32 {
        1.0 / (self.shape.head as f32).sqrt()
    }

    /// Its place among all heads.
    pub(crate) fn index(self) -> usize {
        self.sample * self.shape.heads + self.number
    }

    /// Where its values of part `part` of `parts` begin: of `qkv` query, key and value, of results the only one.
    #[inline(always)]
    pub(crate) fn start(self, parts: usize, part: usize, token: usize) -> usize {
        let Shape { tokens, heads, head, .. } = self.shape;
        (((self.sample * tokens + token) * parts + part) * heads + self.number) * head
    }

    /// Those.
    #[inline(always)]
    pub(crate) fn row<E>(self, all: &[E], parts: usize, part: usize, token: usize) -> &[E] {
        &all[self.start(parts, part, token)..][..self.shape.head]
    }
}

/// Calls `work` with every head and its queries, spread over the threads. Where heads are few and threads many, a head's queries are dealt out
/// too, in multiples of `multiple`; each part packs the keys and values again.
pub(super) fn deal(shape: Shape, multiple: usize, work: &(dyn Fn(Head, Range<usize>) + Sync)) {
    let Shape { samples, tokens, heads, .. } = shape;
    let most = tokens.div_ceil(FEWEST_QUERIES.next_multiple_of(multiple));
    let parts = (2 * parallel::threads()).div_ceil(samples * heads).min(most);
    let queries = tokens.div_ceil(parts).next_multiple_of(multiple);
    parallel::for_each(samples * heads * parts, &|task| {
        let (head, part) = (task / parts, task % parts);
        let own = part * queries..tokens.min((part + 1) * queries);
        if !own.is_empty() {
            work(Head::at(shape, head), own);
        }
    });
}

/// (N, T, 3·H·head), contiguous → (N, T, H·head). There is a kernel for it.
pub(crate) fn self_attention(qkv: &Tensor, shape: Shape) -> Tensor {
    #[cfg(target_arch = "x86_64")]
    if qkv.kind() == Kind::BFloat16 && crate::cpu::Cpu::detect().amx {
        return super::amx::self_attention(qkv, shape);
    }
    flash_attention(qkv, shape, false).0
}

/// Calls a function of `flash` with the widest registers that this CPU has for tensors of a kind.
#[cfg(target_arch = "x86_64")]
macro_rules! with_registers {
    (@singles $element:ty, $function:path, $($argument:expr),+) => {
        match Avx512::<$element>::detect() {
            Some(registers) => $function(registers, $($argument),+),
            None => $function(Avx2::<$element>::detect().expect("there is a kernel"), $($argument),+),
        }
    };
    ($kind:expr, $function:path, $($argument:expr),+) => {{
        match $kind {
            Kind::Float => with_registers!(@singles f32, $function, $($argument),+),
            _ => match Avx512Pairs::detect() {
                Some(registers) => $function(registers, $($argument),+),
                None => with_registers!(@singles Bf16, $function, $($argument),+),
            },
        }
    }};
}

/// The same of NEON's.
#[cfg(target_arch = "aarch64")]
macro_rules! with_registers {
    ($kind:expr, $function:path, $($argument:expr),+) => {{
        match $kind {
            Kind::Float => $function(Neon::<f32>::detect().expect("there is a kernel"), $($argument),+),
            _ => $function(Neon::<Bf16>::detect().expect("there is a kernel"), $($argument),+),
        }
    }};
}

/// [`flash::self_attention`].
pub(crate) fn flash_attention(qkv: &Tensor, shape: Shape, keep: bool) -> (Tensor, Option<flash::Kept>) {
    with_registers!(qkv.kind(), flash::self_attention, qkv, shape, keep)
}

/// [`flash::pull_back`], by the registers that [`flash_attention`] took.
pub(crate) fn pull_back(given: &flash::Given<'_>) -> Tensor {
    with_registers!(given.qkv.kind(), flash::pull_back, given)
}
