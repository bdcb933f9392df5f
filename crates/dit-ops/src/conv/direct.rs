//! Any convolution as a matrix product: a row of the left factor is one result pixel's window.

use super::{Call, Convolution, Products, Sizes, packed::Packed};
use crate::parallel;

/// Pixels of a task: a multiple of every tile's rows.
pub(super) const PIXELS: usize = 96;

/// Weights (C_out, C_in, k, k) as one factor, whose inner dimension runs over rows, columns and channels of the window.
pub(super) fn pack(weight: &[f32], outputs: usize, inputs: usize, kernel: usize, products: Products) -> Packed {
    let square = kernel * kernel;
    let element = |output: usize, index: usize| {
        let (place, input) = (index / inputs, index % inputs);
        [weight[(output * inputs + input) * square + place]]
    };
    Packed::new((square * inputs, outputs), products, &element)
}

/// Pixels of the parts of statistics: each task's are one.
pub(super) fn part_sizes(sizes: &Sizes) -> Vec<u32> {
    let pixels = sizes.out_height * sizes.out_width;
    (0..pixels).step_by(PIXELS).map(|first| PIXELS.min(pixels - first) as u32).collect()
}

pub(super) fn run(convolution: &Convolution, call: &Call<'_>) {
    let pixels = call.sizes.out_height * call.sizes.out_width;
    let blocks = pixels.div_ceil(PIXELS);
    parallel::for_each(call.sizes.images * blocks, &|task| {
        let (image, first) = (task / blocks, task % blocks * PIXELS);
        let range = first..pixels.min(first + PIXELS);
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        // SAFETY: a convolution exists only where the CPU has the instructions; ranges are disjoint, and lie within the image.
        unsafe {
            super::kernels::direct(convolution, call, image, range);
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = (convolution, image, range);
    });
}
