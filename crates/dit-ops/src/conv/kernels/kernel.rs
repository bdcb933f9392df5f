//! Convolutions by way of products of factors, in fp32 and in bf16.

use std::ops::Range;

use super::{
    super::{
        Call, Convolution,
        direct::PIXELS,
        packed::WIDTH,
        winograd::{Block, POINTS, padded},
    },
    GAP, GATHERED, Scratch,
    gather::{self, Image},
    output::{self, prefetch_skip},
    products, vanishes,
};

/// One module for each kind of word.
macro_rules! kernel {
    ($module:ident, $set:ident, $features:literal, $output:ident, $products:ident, $store:ident) => {
        pub(super) mod $module {
            use super::{
                gather::$set::{gather, load},
                output::$output::{Running, put, $store},
                products::$products::{PANELS, ROWS, multiply},
                *,
            };
            use crate::$set::vector as v;

            /// # Safety
            /// As [`super::super::winograd`]; with AMX, there are [`Tiles`](crate::amx::Tiles) of sixteen rows.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn winograd<const DOUBLED: bool>(
                convolution: &Convolution,
                call: &Call<'_>,
                block: Block,
                scratch: &mut Scratch,
            ) {
                let image = Image::new(convolution, call, block.image);
                let weights = &convolution.weights;
                let tiles = block.rows * block.columns;
                // Rows of the factors: those past the last tile are old numbers, whose sums are not read.
                let rows = tiles.next_multiple_of(ROWS);
                let stride = weights.depth + GAP;
                let plane = rows * stride + GAP;
                let left = scratch.left.at_least(POINTS * plane);
                let pixels = (2 * block.rows + 2) * (2 * block.columns + 2) * GATHERED;
                let pixels = scratch.pixels.at_least(pixels);
                for channel in (0..image.channels).step_by(GATHERED) {
                    gather::<DOUBLED>(&image, &block, channel, pixels);
                    let count = (padded(image.channels) - channel).min(GATHERED);
                    // SAFETY: `pixels` and `left` are as large as the block asks for.
                    unsafe {
                        input_transform::<DOUBLED>(&block, pixels, count, left.as_mut_ptr(), plane, stride, channel)
                    };
                }
                let sums_stride = PANELS * WIDTH;
                let sums_plane = rows * sums_stride + GAP;
                let sums = scratch.sums.at_least(POINTS * sums_plane);
                let mut first = block.panels.0;
                while first < block.panels.1 {
                    let panels = PANELS.min(block.panels.1 - first);
                    for point in (0..POINTS).filter(|&point| !vanishes(DOUBLED, point)) {
                        let left = left[point * plane..].as_ptr();
                        let sums = sums[point * sums_plane..].as_mut_ptr();
                        let lines = weights.panels(point, first, panels);
                        // SAFETY: a plane has `rows` rows of `depth` words and more, and as many rows of sums.
                        unsafe { multiply(left, stride, rows, lines, weights.depth, sums, sums_stride) };
                    }
                    // SAFETY: the caller's promises.
                    unsafe { output_transform::<DOUBLED>(convolution, call, &block, first, panels, sums, sums_plane) };
                    first += panels;
                }
            }

            /// Results of a block: the output transform, Aᵀ·m·A, of the sums, plus bias and skip; and their statistics.
            ///
            /// # Safety
            /// As [`super::super::winograd`]; `sums` holds [`POINTS`] times `plane` numbers.
            #[target_feature(enable = $features)]
            unsafe fn output_transform<const DOUBLED: bool>(
                convolution: &Convolution,
                call: &Call<'_>,
                block: &Block,
                first_panel: usize,
                panels: usize,
                sums: &[f32],
                plane: usize,
            ) {
                const PARTS: usize = PANELS * WIDTH / 16;
                let (height, width, channels) = (call.sizes.out_height, call.sizes.out_width, convolution.outputs);
                let first_channel = first_panel * WIDTH;
                let registers = (panels * WIDTH).min(channels - first_channel).div_ceil(16);
                for tile_row in 0..block.rows {
                    let row = 2 * (block.top + tile_row);
                    let mut running = [Running::from(v::zero()); PARTS];
                    for tile_column in 0..block.columns {
                        let (tile, column) = (tile_row * block.columns + tile_column, 2 * (block.left + tile_column));
                        for pixel in [0, 1, width, width + 1] {
                            let ahead = (block.image * height + row) * width + column + 2 * AHEAD + pixel;
                            for register in 0..registers {
                                prefetch_skip(call, ahead * channels + first_channel + 16 * register);
                            }
                        }
                        for (register, running) in running.iter_mut().enumerate().take(registers) {
                            let channel = first_channel + 16 * register;
                            let mask = v::first(channels - channel);
                            // SAFETY: tile and channel lie within a plane; masked accesses within a pixel of the result.
                            unsafe {
                                let mut m = [[v::zero(); 4]; 4];
                                for (point, m) in m.as_flattened_mut().iter_mut().enumerate() {
                                    if !vanishes(DOUBLED, point) {
                                        let at = point * plane + tile * (PANELS * WIDTH) + 16 * register;
                                        *m = v::load(sums.as_ptr().add(at));
                                    }
                                }
                                let mut halves = [[v::zero(); 4]; 2];
                                for i in 0..4 {
                                    halves[0][i] = v::add(v::add(m[0][i], m[1][i]), m[2][i]);
                                    halves[1][i] = v::sub(v::sub(m[1][i], m[2][i]), m[3][i]);
                                }
                                let bias = v::load_within(mask, convolution.bias.as_ptr().add(channel));
                                for (i, half) in halves.into_iter().enumerate() {
                                    let results = [
                                        v::add(v::add(half[0], half[1]), half[2]),
                                        v::sub(v::sub(half[1], half[2]), half[3]),
                                    ];
                                    for (j, result) in results.into_iter().enumerate() {
                                        if row + i < height && column + j < width {
                                            let pixel = (block.image * height + row + i) * width + column + j;
                                            let start = pixel * channels + channel;
                                            let result = put(call, start, mask, v::add(result, bias));
                                            if tile_column == 0 && i == 0 && j == 0 {
                                                *running = Running::from(result);
                                            }
                                            running.add(result);
                                        }
                                    }
                                }
                            }
                        }
                    }
                    if let Some(parts) = call.parts {
                        for (register, running) in running.iter().enumerate().take(registers) {
                            let channel = first_channel + 16 * register;
                            // SAFETY: a row of tiles is a part of the statistics; the block's panels are ours.
                            unsafe {
                                let rows = parts.rows(block.image, block.part + tile_row * block.part_stride, channel);
                                running.write(rows, v::first(channels - channel));
                            }
                        }
                    }
                }
            }

            /// The input transform, Bᵀ·d·B, of each tile, `count` channels of it, to the sixteen planes of the left factor.
            ///
            /// # Safety
            /// `pixels` holds the block's pixels; `left` has [`POINTS`] planes of a row of `stride` words for each tile, and
            /// `channel + count` elements fit in a row.
            #[target_feature(enable = $features)]
            unsafe fn input_transform<const DOUBLED: bool>(
                block: &Block,
                pixels: &[f32],
                count: usize,
                left: *mut u32,
                plane: usize,
                stride: usize,
                channel: usize,
            ) {
                let columns = 2 * block.columns + 2;
                for tile in 0..block.rows * block.columns {
                    let corner = 2 * (tile / block.columns) * columns + 2 * (tile % block.columns);
                    for at in (0..count).step_by(16) {
                        // SAFETY: the caller's promise.
                        unsafe {
                            let d = |row: usize, column: usize| {
                                v::load(pixels.as_ptr().add((corner + row * columns + column) * GATHERED + at))
                            };
                            let mut rows = [[v::zero(); 4]; 4];
                            for i in 0..4 {
                                let d = [d(0, i), d(1, i), d(2, i), d(3, i)];
                                for (row, value) in input_transform_1d(d).into_iter().enumerate() {
                                    rows[row][i] = value;
                                }
                            }
                            for (row, values) in rows.into_iter().enumerate() {
                                for (column, value) in input_transform_1d(values).into_iter().enumerate() {
                                    let point = 4 * row + column;
                                    if !vanishes(DOUBLED, point) {
                                        $store(left.add(point * plane + tile * stride), channel + at, v::ALL, value);
                                    }
                                }
                            }
                        }
                    }
                }
            }

            /// Bᵀ·d: the input transform (Lavin & Gray 2015, section 4.1) of one column, or of one row of what it made of the columns.
            #[target_feature(enable = $features)]
            #[inline]
            fn input_transform_1d(d: [v::Floats; 4]) -> [v::Floats; 4] {
                [v::sub(d[0], d[2]), v::add(d[1], d[2]), v::sub(d[2], d[1]), v::sub(d[1], d[3])]
            }

            /// # Safety
            /// As [`super::super::direct`]; with AMX, there are [`Tiles`](crate::amx::Tiles) of sixteen rows.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn direct(
                convolution: &Convolution,
                call: &Call<'_>,
                image: usize,
                pixels: Range<usize>,
                scratch: &mut Scratch,
            ) {
                let source = Image::new(convolution, call, image);
                let (weights, geometry, kernel) = (&convolution.weights, convolution.geometry, convolution.kernel);
                let stride = weights.depth + GAP;
                let left = scratch.left.at_least(PIXELS * stride);
                for (row, pixel) in pixels.clone().enumerate() {
                    let words = &mut left[row * stride..][..stride];
                    words[weights.depth - 1] = 0; // whose second half may be padding
                    let (y, x) = (
                        pixel / call.sizes.out_width * geometry.stride,
                        pixel % call.sizes.out_width * geometry.stride,
                    );
                    for place in 0..kernel * kernel {
                        let y = (y + place / kernel).wrapping_sub(geometry.before);
                        let x = (x + place % kernel).wrapping_sub(geometry.before);
                        let inside = y < source.height && x < source.width;
                        for channel in (0..source.channels).step_by(16) {
                            let values = if inside { load(&source, y, x, channel) } else { v::zero() };
                            let mask = v::first(source.channels - channel);
                            // SAFETY: the window's elements fit in a row of the factor.
                            unsafe { $store(words.as_mut_ptr(), place * source.channels + channel, mask, values) };
                        }
                    }
                }
                let channels = convolution.outputs;
                let sums_stride = PANELS * WIDTH;
                let sums = scratch.sums.at_least(PIXELS * sums_stride);
                let rows = pixels.len().next_multiple_of(ROWS);
                let first = image * call.sizes.out_height * call.sizes.out_width + pixels.start;
                for panel in (0..weights.panels).step_by(PANELS) {
                    let panels = PANELS.min(weights.panels - panel);
                    let lines = weights.panels(0, panel, panels);
                    // SAFETY: the factor has PIXELS rows, a multiple of every kernel's; those past the last pixel are old numbers.
                    unsafe {
                        let (left, sums) = (left.as_ptr(), sums.as_mut_ptr());
                        multiply(left, stride, rows, lines, weights.depth, sums, sums_stride);
                    }
                    let first_channel = panel * WIDTH;
                    for channel in (first_channel..channels.min(first_channel + panels * WIDTH)).step_by(16) {
                        let mask = v::first(channels - channel);
                        let mut running = Running::from(v::zero());
                        for row in 0..pixels.len() {
                            // SAFETY: masked accesses lie within the bias and within a pixel of the result.
                            unsafe {
                                let bias = v::load_within(mask, convolution.bias.as_ptr().add(channel));
                                let sum = v::load(sums.as_ptr().add(row * sums_stride + channel - first_channel));
                                let start = (first + row) * channels + channel;
                                let result = put(call, start, mask, v::add(sum, bias));
                                if row == 0 {
                                    running = Running::from(result);
                                }
                                running.add(result);
                            }
                        }
                        if let Some(parts) = call.parts {
                            // SAFETY: a task's pixels are a part of the statistics, and nobody else's.
                            unsafe { running.write(parts.rows(image, pixels.start / PIXELS, channel), mask) };
                        }
                    }
                }
            }
        }
    };
}

/// Tiles whose skip connection is asked for before it is needed.
const AHEAD: usize = 2;

#[cfg(target_arch = "x86_64")]
kernel!(fp32_avx2, avx2, "avx2,fma", avx2, fp32_avx2, store_fp32);
#[cfg(target_arch = "x86_64")]
kernel!(bf16_avx2, avx2, "avx2,fma", avx2, bf16_avx2, store_bf16);
#[cfg(target_arch = "x86_64")]
kernel!(fp32, avx512, "avx512f,avx512bw,avx512dq,avx512vl", avx512, fp32, store_fp32);
#[cfg(target_arch = "x86_64")]
kernel!(bf16, avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", avx512_bf16, bf16, store_bf16);
#[cfg(target_arch = "x86_64")]
kernel!(bf16_widened, avx512, "avx512f,avx512bw,avx512dq,avx512vl", avx512, bf16_widened, store_bf16);
#[cfg(target_arch = "x86_64")]
kernel!(amx, avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", avx512_bf16, amx, store_bf16);
#[cfg(target_arch = "aarch64")]
kernel!(fp32_neon, neon, "neon", neon, fp32_neon, store_fp32);
#[cfg(target_arch = "aarch64")]
kernel!(bf16_neon, neon, "neon", neon, bf16_neon, store_bf16);
