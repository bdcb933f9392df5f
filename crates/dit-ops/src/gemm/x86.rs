//! One panel of a product, with AVX-512.

use super::{Epilogue, Left, Output, Panels, Place, ROWS, WIDTH, Words, epilogue::finish};
use crate::tile::{bf16, fp32, int8};

/// Registers of a panel's row.
const LANES: usize = WIDTH / 16;

/// One panel for the rows of `place`.
///
/// # Safety
/// The CPU has the instructions of `right.kind`; the sizes fit as `multiply` asserts; `place` lies within them; nobody else
/// touches its results.
pub(super) unsafe fn multiply_panel(
    left: Left<'_>,
    right: Panels<'_>,
    epilogue: Epilogue<'_>,
    output: Output,
    place: Place,
) {
    // SAFETY: the caller's promises, handed on.
    unsafe {
        match right.kind {
            Words::F32 => multiply_panel_f32(left, right, epilogue, output, place),
            Words::Bf16 => multiply_panel_bf16(left, right, epilogue, output, place),
            Words::Int8 => multiply_panel_int8(left, right, epilogue, output, place),
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
            let width = WIDTH.min(right.columns - column);
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
                for (row, sums) in sums.iter().enumerate().take(rows) {
                    let row = first + row;
                    let start = row * right.columns + column;
                    // SAFETY: these results are this task's own, and lie within the output's rows; `column` is a panel's first.
                    unsafe {
                        match output {
                            Output::F32(destination) => {
                                finish(&epilogue, sums, row, column, destination.slice(start, width))
                            }
                            Output::Bf16(destination) => {
                                finish(&epilogue, sums, row, column, destination.slice(start, width))
                            }
                        }
                    }
                }
                first += rows;
            }
        }
    };
}

multiply_panel!(multiply_panel_f32, "avx512f,avx512bw,avx512dq,avx512vl", fp32);
multiply_panel!(multiply_panel_bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", bf16);
multiply_panel!(multiply_panel_int8, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", int8);
