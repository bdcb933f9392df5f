//! One panel of a product, with AVX-512 or AMX.

use super::{Epilogue, Kernel, Left, Output, Panels, Place, ROWS, WIDTH, epilogue::finish};
use crate::{
    amx::{self, Tiles},
    tile::{bf16, fp32, int8},
};

/// Registers of a panel's row.
const LANES: usize = WIDTH / 16;

/// One panel for the rows of `place`.
///
/// # Safety
/// The CPU has the instructions of `kernel`, which is one of `right.kind`; the sizes fit as `multiply` asserts; `place` lies within
/// them; nobody else touches its results.
pub(super) unsafe fn multiply_panel(
    kernel: Kernel,
    left: Left<'_>,
    right: Panels<'_>,
    epilogue: Epilogue<'_>,
    output: Output,
    place: Place,
) {
    // SAFETY: the caller's promises, handed on.
    unsafe {
        match kernel {
            Kernel::F32 => multiply_panel_f32(left, right, epilogue, output, place),
            Kernel::Bf16 => multiply_panel_bf16(left, right, epilogue, output, place),
            Kernel::Int8 => multiply_panel_int8(left, right, epilogue, output, place),
            Kernel::AmxBf16 => multiply_panel_amx_bf16(left, right, epilogue, output, place),
            Kernel::AmxInt8 => multiply_panel_amx_int8(left, right, epilogue, output, place),
        }
    }
}

/// The results of rows from `first` on, from their sums.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL; the rows are the product's, `column` is a panel's first, and nobody else touches these
/// results.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn finish_rows(
    sums: &[[u32; WIDTH]],
    first: usize,
    column: usize,
    columns: usize,
    epilogue: &Epilogue<'_>,
    output: Output,
) {
    let width = WIDTH.min(columns - column);
    for (row, sums) in sums.iter().enumerate() {
        let row = first + row;
        let start = row * columns + column;
        // SAFETY: the caller's promises.
        unsafe {
            match output {
                Output::F32(destination) => finish(epilogue, sums, row, column, destination.slice(start, width)),
                Output::Bf16(destination) => finish(epilogue, sums, row, column, destination.slice(start, width)),
            }
        }
    }
}

macro_rules! multiply_panel {
    ($name:ident, $features:literal, $module:ident) => {
        /// # Safety
        /// As [`multiply_panel`].
        #[target_feature(enable = $features)]
        unsafe fn $name(left: Left<'_>, right: Panels<'_>, epilogue: Epilogue<'_>, output: Output, place: Place) {
            let depth = right.depth;
            let panel = right.lines[place.panel * depth * LANES..][..depth * LANES].as_ptr();
            let column = place.panel * WIDTH;
            let mut sums = [[0; WIDTH]; ROWS];
            let mut first = place.first;
            while first < place.end {
                let rows = ROWS.min(place.end - first);
                // Rows past the end repeat the last one, and are not stored.
                let starts: [*const u32; ROWS] =
                    std::array::from_fn(|row| left.words[(first + row.min(rows - 1)) * left.stride..].as_ptr());
                let [one, two, ..] = starts;
                // SAFETY: each start is followed by a row's `depth` words, the panel has `depth` times `LANES` lines, `sums` a row
                // for each.
                unsafe {
                    match rows {
                        1 | 2 => $module::tile::<2, LANES>(
                            [one, two],
                            panel,
                            depth,
                            sums.as_flattened_mut().as_mut_ptr(),
                            WIDTH,
                        ),
                        _ => $module::tile::<ROWS, LANES>(
                            starts,
                            panel,
                            depth,
                            sums.as_flattened_mut().as_mut_ptr(),
                            WIDTH,
                        ),
                    }
                }
                // SAFETY: these results are this task's own, and lie within the output's rows; `column` is a panel's first.
                unsafe { finish_rows(&sums[..rows], first, column, right.columns, &epilogue, output) };
                first += rows;
            }
        }
    };
}

multiply_panel!(multiply_panel_f32, "avx512f,avx512bw,avx512dq,avx512vl", fp32);
multiply_panel!(multiply_panel_bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", bf16);
multiply_panel!(multiply_panel_int8, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", int8);

macro_rules! multiply_panel_amx {
    ($name:ident, $module:ident) => {
        /// # Safety
        /// As [`multiply_panel`].
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn $name(left: Left<'_>, right: Panels<'_>, epilogue: Epilogue<'_>, output: Output, place: Place) {
            let depth = right.depth;
            let panel = amx::Panel {
                start: right.lines[place.panel * depth * LANES..][..depth * LANES].as_ptr(),
                stride: LANES,
            };
            let column = place.panel * WIDTH;
            let mut sums = [[0; WIDTH]; amx::BLOCK_ROWS];
            // SAFETY: the kernel was chosen because the CPU has it.
            let mut tiles = unsafe { Tiles::of_rows(amx::ROWS) };
            let mut first = place.first;
            while first < place.end {
                let there = place.end - first;
                let count = if there >= amx::BLOCK_ROWS { amx::BLOCK_ROWS } else { there.min(amx::ROWS) };
                let rows = amx::Rows { start: left.words[first * left.stride..].as_ptr(), stride: left.stride, count };
                let place = sums.as_flattened_mut().as_mut_ptr();
                // SAFETY: each row has `depth` words, the panel `depth` times `LANES` lines, `sums` a row for each.
                unsafe {
                    if count == amx::BLOCK_ROWS {
                        amx::$module::block(rows, panel, depth, place);
                    } else {
                        if count < amx::ROWS {
                            tiles.set_rows(count);
                        }
                        amx::$module::strip::<LANES>(rows, panel, depth, place, WIDTH);
                    }
                    // Results are this task's own, and lie within the output's rows; `column` is a panel's first.
                    finish_rows(&sums[..count], first, column, right.columns, &epilogue, output);
                }
                first += count;
            }
        }
    };
}

multiply_panel_amx!(multiply_panel_amx_bf16, bf16);
multiply_panel_amx!(multiply_panel_amx_int8, int8);
