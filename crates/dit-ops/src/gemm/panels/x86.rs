use super::{
    super::{
        AMX_ROWS, AVX2_FEWEST_COPIED, AVX512_PANELS_AT_ONCE, AVX512_ROWS, COPIED_ROWS_AT_ONCE, Epilogue, Kernel, Left,
        Line, Output, Panels, Place, WIDTH, Words,
        epilogue::{self, Sums},
    },
    LANES, Multiply,
};
use crate::{
    amx::{self, Tiles},
    avx2, avx512,
};

const _: () = assert!(AMX_ROWS == amx::BLOCK_ROWS && LANES == amx::BLOCK_LANES);

/// What multiplies by the instructions of a kernel of this architecture.
pub(super) fn of(kernel: Kernel) -> Multiply {
    match kernel {
        Kernel::Avx512(Words::F32) => avx512_f32,
        Kernel::Avx512(Words::Bf16) => avx512_bf16,
        Kernel::Avx512(Words::Int8) => avx512_int8,
        Kernel::Avx512Widened => avx512_widened,
        Kernel::Avx2(Words::F32) => avx2_f32,
        Kernel::Avx2(Words::Bf16) => avx2_bf16,
        Kernel::Avx2(Words::Int8) => avx2_int8,
        Kernel::AmxBf16 => amx_bf16,
        Kernel::AmxInt8 => amx_int8,
        Kernel::Neon(_) => unreachable!("a kernel of another architecture"),
    }
}

macro_rules! multiply_avx512 {
    ($name:ident, $features:literal, $words:ident) => {
        /// # Safety
        /// As [`multiply`](super::multiply).
        #[target_feature(enable = $features)]
        unsafe fn $name(left: Left<'_>, right: Panels<'_>, epilogue: Epilogue<'_>, output: Output, place: Place) {
            use avx512::tile::$words::tile;
            const ROWS: usize = AVX512_ROWS;
            const STRIDE: usize = AVX512_PANELS_AT_ONCE * WIDTH;
            let depth = right.depth;
            let lines = &right.lines[place.panel * depth * LANES..][..place.panels * depth * LANES];
            let mut sums = [[0; STRIDE]; ROWS];
            assert!(place.panels <= AVX512_PANELS_AT_ONCE, "the sums have no room for so many");
            let mut first = place.first;
            while first < place.end {
                let rows = ROWS.min(place.end - first);
                // Rows past the end repeat the last one, and are not stored.
                let starts: [*const u32; ROWS] =
                    std::array::from_fn(|row| left.words[(first + row.min(rows - 1)) * left.stride..].as_ptr());
                let [one, two, ..] = starts;
                for panel in 0..place.panels {
                    // SAFETY: each start is followed by a row's `depth` words, each panel has `depth` times `LANES` lines, `sums` a row
                    // for each.
                    unsafe {
                        let panel_lines = lines.as_ptr().add(panel * depth * LANES);
                        let sums = sums.as_flattened_mut().as_mut_ptr().add(panel * WIDTH);
                        match rows {
                            1 | 2 => tile::<2, LANES>([one, two], panel_lines, depth, sums, STRIDE, false),
                            _ => tile::<ROWS, LANES>(starts, panel_lines, depth, sums, STRIDE, false),
                        }
                    }
                }
                let sums = Sums {
                    words: sums.as_flattened(),
                    stride: STRIDE,
                    rows,
                    first,
                    column: place.panel * WIDTH,
                    width: place.panels * WIDTH,
                    lowered: 0,
                };
                // SAFETY: these results are this task's own, and lie within the output's rows.
                unsafe { epilogue::avx512::finish(sums, right.columns, &epilogue, output) };
                first += rows;
            }
        }
    };
}

multiply_avx512!(avx512_f32, "avx512f,avx512bw,avx512dq,avx512vl", fp32);
multiply_avx512!(avx512_bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", bf16);
multiply_avx512!(avx512_int8, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", int8);

multiply_copied!(avx512_widened, avx512, "avx512f,avx512bw,avx512dq,avx512vl", avx512::widened::multiply, 0);

/// Few rows where they lie, and more by their copies.
macro_rules! avx2_products {
    ($name:ident, $words:ident) => {
        /// # Safety
        /// As [`avx2::block`]'s.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name<const LANES: usize>(
            left: *const u32,
            stride: usize,
            rows: usize,
            (panels, count): (*const Line, usize),
            depth: usize,
            sums: *mut u32,
            (sums_apart, sums_stride): (usize, usize),
        ) {
            // SAFETY: the caller's promises.
            unsafe {
                if rows >= AVX2_FEWEST_COPIED {
                    let (panels, apart) = ((panels, count), (sums_apart, sums_stride));
                    return avx2::block::$words::multiply::<LANES>(left, stride, rows, panels, depth, sums, apart);
                }
                for panel in 0..count {
                    let (lines, sums) = (panels.add(panel * depth * LANES), sums.add(panel * sums_apart));
                    avx2::tile::$words::multiply::<LANES>(left, stride, rows, lines, depth, sums, sums_stride);
                }
            }
        }
    };
}

avx2_products!(fp32_products, fp32);
avx2_products!(bf16_products, bf16);
avx2_products!(int8_products, int8);

multiply_copied!(avx2_f32, avx2, "avx2,fma", fp32_products, 0);
multiply_copied!(avx2_bf16, avx2, "avx2,fma", bf16_products, 0);
multiply_copied!(avx2_int8, avx2, "avx2,fma", int8_products, 0);

macro_rules! multiply_amx {
    ($name:ident, $module:ident) => {
        /// # Safety
        /// As [`multiply`](super::multiply).
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn $name(left: Left<'_>, right: Panels<'_>, epilogue: Epilogue<'_>, output: Output, place: Place) {
            let depth = right.depth;
            let panel = right.lines[place.panel * depth * LANES..][..depth * LANES].as_ptr();
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
                }
                let sums = Sums {
                    words: sums.as_flattened(),
                    stride: WIDTH,
                    rows: count,
                    first,
                    column,
                    width: WIDTH,
                    lowered: 0,
                };
                // SAFETY: results are this task's own, and lie within the output's rows.
                unsafe { epilogue::avx512::finish(sums, right.columns, &epilogue, output) };
                first += count;
            }
        }
    };
}

multiply_amx!(amx_bf16, bf16);
multiply_amx!(amx_int8, int8);
