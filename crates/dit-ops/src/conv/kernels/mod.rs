//! The kernels, for AVX2, AVX-512, AMX and NEON.

use std::{cell::RefCell, ops::Range};

use super::{Call, Convolution, Products, winograd::Block};
use crate::aligned::Aligned;
#[cfg(target_arch = "x86_64")]
use crate::{
    amx::{ROWS, Tiles},
    cpu::Cpu,
};

mod gather;
mod kernel;
mod output;
mod products;

/// Channels that are gathered and transformed at a time: a block's pixels of so many stay in the second-level cache.
const GATHERED: usize = 64;
/// Words after each row of a factor: rows of 2 KB and more would else fall on the same few sets of the first-level cache.
const GAP: usize = 16;

/// What a thread keeps between tasks, so that memory is asked for once.
#[derive(Default)]
struct Scratch {
    pixels: Aligned<f32>,
    left: Aligned<u32>,
    sums: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Evaluates `$call`, in which `chosen` is the module of the kernels for the convolution's products on this CPU.
#[cfg(target_arch = "x86_64")]
macro_rules! with_kernels {
    ($convolution:expr, $call:expr) => {{
        let (products, cpu) = ($convolution.products, Cpu::detect());
        let wide = products.words().in_avx512(cpu);
        match products {
            Products::Fp32 if wide => {
                use kernel::fp32 as chosen;
                $call
            }
            Products::Fp32 => {
                use kernel::fp32_avx2 as chosen;
                $call
            }
            Products::Bf16 if cpu.amx => {
                use kernel::amx as chosen;
                let _tiles = Tiles::of_rows(ROWS);
                $call
            }
            Products::Bf16 if wide => {
                use kernel::bf16 as chosen;
                $call
            }
            Products::Bf16 if cpu.avx512 => {
                use kernel::bf16_widened as chosen;
                $call
            }
            Products::Bf16 => {
                use kernel::bf16_avx2 as chosen;
                $call
            }
        }
    }};
}

/// The same of NEON's.
#[cfg(target_arch = "aarch64")]
macro_rules! with_kernels {
    ($convolution:expr, $call:expr) => {{
        match $convolution.products {
            Products::Fp32 => {
                use kernel::fp32_neon as chosen;
                $call
            }
            Products::Bf16 => {
                use kernel::bf16_neon as chosen;
                $call
            }
        }
    }};
}

/// One block of a convolution by Winograd's method; of a doubled input where `DOUBLED`.
///
/// # Safety
/// The CPU has the instructions of the convolution's products; the block lies within the result, and nobody else writes to it.
pub(super) unsafe fn winograd<const DOUBLED: bool>(convolution: &Convolution, call: &Call<'_>, block: Block) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promises.
        unsafe { with_kernels!(convolution, chosen::winograd::<DOUBLED>(convolution, call, block, scratch)) }
    });
}

/// Some result pixels of an image, in rows one after the other.
///
/// # Safety
/// As [`winograd`].
pub(super) unsafe fn direct(convolution: &Convolution, call: &Call<'_>, image: usize, pixels: Range<usize>) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promises.
        unsafe { with_kernels!(convolution, chosen::direct(convolution, call, image, pixels, scratch)) }
    });
}

/// Whether a point's products vanish for a doubled input: Bᵀ·d has in its third row the difference of two equal pixels.
const fn vanishes(doubled: bool, point: usize) -> bool {
    doubled && (point / 4 == 2 || point % 4 == 2)
}
