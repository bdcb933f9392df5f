//! The inner loops: sums of products of a few rows with some columns of a panel.
//!
//! What a register of the right factor wants to be, sixteen words of the inner dimension by sixteen columns, is sixteen lines of a
//! panel, so that panels are those of the AVX-512 kernels. The left factor's registers are loaded as its rows lie; rows that begin
//! at multiples of 64 bytes load at twice the speed.

use std::{arch::asm, mem::MaybeUninit};

use super::ROWS;
use crate::gemm::Line;

/// Rows and registers of a [`bf16::block`].
pub(crate) const BLOCK_ROWS: usize = 2 * ROWS;
pub(crate) const BLOCK_LANES: usize = 3;
/// Most registers of a strip's results.
const MOST_LANES: usize = 5;

/// The left factor of a tile: rows of words.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub start: *const u32,
    /// Words from one row to the next.
    pub stride: usize,
    /// Rows that there are.
    pub count: usize,
}

/// The words of the inner dimension after the last whole sixteen, filled up with zeros.
#[repr(C, align(64))]
struct Rest<const ROWS: usize, const LANES: usize> {
    left: [[u32; 16]; ROWS],
    right: [[Line; LANES]; 16],
}

impl<const ROWS: usize, const LANES: usize> Rest<ROWS, LANES> {
    /// Null where nothing is left of `depth`.
    ///
    /// # Safety
    /// `depth` words of each row, and of each of the panel's columns, which are no others, can be read.
    unsafe fn write(place: &mut MaybeUninit<Self>, rows: Rows, panel: *const Line, depth: usize) -> *const Self {
        let from = depth / 16 * 16;
        if from == depth {
            return std::ptr::null();
        }
        let rest = place.write(Self { left: [[0; 16]; ROWS], right: [[Line([0; 16]); LANES]; 16] });
        for (row, words) in rest.left.iter_mut().enumerate().take(rows.count) {
            for (word, place) in (from..depth).zip(words) {
                // SAFETY: the caller's promise.
                *place = unsafe { *rows.start.add(row * rows.stride + word) };
            }
        }
        for (word, lines) in (from..depth).zip(&mut rest.right) {
            for (lane, line) in lines.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *line = unsafe { *panel.add(word * LANES + lane) };
            }
        }
        rest
    }
}

/// Asks for lines of the panel's next step.
macro_rules! prefetch {
    ($($offset:literal)*) => {
        concat!($("prefetcht0 [{right} + {ahead} + ", $offset, "]\n"),*)
    };
}

/// A strip's registers: the results', and where their columns begin in a line of the panel, in bytes.
macro_rules! strip {
    ($dot:literal, $lanes:literal: $(($tile:literal, $offset:literal)),+; $rows:ident, $panel:ident, $depth:ident, $rest:ident, $sums:ident, $stride:ident) => {
        asm!(
            $(concat!("tilezero tmm", $tile),)+
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm6, [{left} + {left_stride}]",
            $(
                concat!("tileloadd tmm7, [{right} + {right_stride} + ", $offset, "]"),
                concat!($dot, " tmm", $tile, ", tmm6, tmm7"),
            )+
            "add {left}, 64",
            "add {right}, {step}",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 4f",
            // The rest: one more step, over sixteen rows of 64 bytes and then sixteen of the registers' width.
            "mov {left}, {rest}",
            "lea {right}, [{rest} + 1024]",
            "mov {left_stride}, 64",
            "mov {right_stride}, 64 * {lanes}",
            "xor {rest:e}, {rest:e}",
            "mov {steps}, 1",
            "jmp 2b",
            "4:",
            $(concat!("tilestored [{sums} + {sums_stride} + ", $offset, "], tmm", $tile),)+
            left = inout(reg) $rows.start => _,
            left_stride = inout(reg) 4 * $rows.stride => _,
            right = inout(reg) $panel => _,
            right_stride = inout(reg) 64_usize * $lanes => _,
            step = in(reg) 64_usize * 16 * $lanes,
            lanes = const $lanes,
            steps = inout(reg) $depth / 16 => _,
            rest = inout(reg) $rest => _,
            sums = in(reg) $sums,
            sums_stride = in(reg) 4 * $stride,
            options(nostack),
        )
    };
}

/// One module for each kind of word; they differ in a single instruction.
macro_rules! amx {
    ($module:ident, $dot:literal) => {
        pub(crate) mod $module {
            use super::*;

            /// Multiplies [`BLOCK_ROWS`] rows with [`BLOCK_LANES`] registers of columns; the sums, bits of fp32 or int32, go to
            /// rows of 16·[`BLOCK_LANES`] words. One step is six products of seven loads.
            ///
            /// # Safety
            /// There are [`Tiles`](super::Tiles) of sixteen rows. `depth` words of each row, and of each of the panel's columns, which
            /// are no others, can be read; `sums` has room.
            pub(crate) unsafe fn block(rows: Rows, panel: *const Line, depth: usize, sums: *mut u32) {
                let mut rest = MaybeUninit::<Rest<BLOCK_ROWS, BLOCK_LANES>>::uninit();
                // SAFETY: the caller's promise.
                let rest = unsafe { Rest::write(&mut rest, rows, panel, depth) };
                // SAFETY: sixteen rows of 64 bytes are read at each load, which are words of the factors, or the rest; prefetching
                // reads nothing. Sums are written within their room. The compiler itself uses none of the registers.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "tilezero tmm4",
                        "tilezero tmm5",
                        "test {steps}, {steps}",
                        "jz 3f",
                        "2:",
                        "tileloadd tmm7, [{right} + {right_stride}]",
                        "tileloadd tmm6, [{left} + {left_stride}]",
                        concat!($dot, " tmm0, tmm6, tmm7"),
                        prefetch!(0 64 128 192 256 320 384 448),
                        "tileloadd tmm6, [{lower} + {left_stride}]",
                        concat!($dot, " tmm3, tmm6, tmm7"),
                        prefetch!(512 576 640 704 768 832 896 960),
                        "tileloadd tmm7, [{right} + {right_stride} + 64]",
                        concat!($dot, " tmm4, tmm6, tmm7"),
                        prefetch!(1024 1088 1152 1216 1280 1344 1408 1472),
                        "tileloadd tmm6, [{left} + {left_stride}]",
                        concat!($dot, " tmm1, tmm6, tmm7"),
                        prefetch!(1536 1600 1664 1728 1792 1856 1920 1984),
                        "tileloadd tmm7, [{right} + {right_stride} + 128]",
                        concat!($dot, " tmm2, tmm6, tmm7"),
                        prefetch!(2048 2112 2176 2240 2304 2368 2432 2496),
                        "tileloadd tmm6, [{lower} + {left_stride}]",
                        concat!($dot, " tmm5, tmm6, tmm7"),
                        prefetch!(2560 2624 2688 2752 2816 2880 2944 3008),
                        "add {left}, 64",
                        "add {lower}, 64",
                        "add {right}, {ahead}",
                        "dec {steps}",
                        "jnz 2b",
                        "3:",
                        "test {rest}, {rest}",
                        "jz 4f",
                        // The rest: one more step, over 32 rows of 64 bytes and then sixteen of 192.
                        "mov {left}, {rest}",
                        "lea {lower}, [{rest} + 1024]",
                        "lea {right}, [{rest} + 2048]",
                        "mov {left_stride}, 64",
                        "mov {right_stride}, 192",
                        "xor {rest:e}, {rest:e}",
                        "mov {steps}, 1",
                        "jmp 2b",
                        "4:",
                        "mov {left_stride}, 192",
                        "tilestored [{sums} + {left_stride}], tmm0",
                        "tilestored [{sums} + {left_stride} + 64], tmm1",
                        "tilestored [{sums} + {left_stride} + 128], tmm2",
                        "add {sums}, 3072",
                        "tilestored [{sums} + {left_stride}], tmm3",
                        "tilestored [{sums} + {left_stride} + 64], tmm4",
                        "tilestored [{sums} + {left_stride} + 128], tmm5",
                        left = inout(reg) rows.start => _,
                        lower = inout(reg) rows.start.wrapping_add(ROWS * rows.stride) => _,
                        left_stride = inout(reg) 4 * rows.stride => _,
                        right = inout(reg) panel => _,
                        right_stride = inout(reg) 64 * BLOCK_LANES => _,
                        ahead = in(reg) 64 * 16 * BLOCK_LANES,
                        steps = inout(reg) depth / 16 => _,
                        rest = inout(reg) rest => _,
                        sums = inout(reg) sums => _,
                        options(nostack),
                    );
                }
            }

            /// Multiplies up to sixteen rows with `LANES` registers of columns; row r's sums go to `sums + r·stride`.
            ///
            /// # Safety
            /// There are [`Tiles`](super::Tiles) of `rows.count` rows. `depth` words of each row, and of each of the panel's columns,
            /// which are no others, can be read; 16·`LANES` words from each row's place in `sums` can be written.
            pub(crate) unsafe fn strip<const LANES: usize>(
                rows: Rows,
                panel: *const Line,
                depth: usize,
                sums: *mut u32,
                stride: usize,
            ) {
                const { assert!(LANES > 0 && LANES <= MOST_LANES) };
                let mut rest = MaybeUninit::<Rest<ROWS, LANES>>::uninit();
                // SAFETY: the caller's promise.
                let rest = unsafe { Rest::write(&mut rest, rows, panel, depth) };
                // SAFETY: as in `block`, but that as many rows of the left factor are read as the registers have.
                unsafe {
                    match LANES {
                        1 => strip!($dot, 1: (0, 0); rows, panel, depth, rest, sums, stride),
                        2 => strip!($dot, 2: (0, 0), (1, 64); rows, panel, depth, rest, sums, stride),
                        3 => strip!($dot, 3: (0, 0), (1, 64), (2, 128); rows, panel, depth, rest, sums, stride),
                        4 => strip!(
                            $dot, 4: (0, 0), (1, 64), (2, 128), (3, 192); rows, panel, depth, rest, sums, stride
                        ),
                        _ => strip!(
                            $dot, 5: (0, 0), (1, 64), (2, 128), (3, 192), (4, 256); rows, panel, depth, rest, sums, stride
                        ),
                    }
                }
            }
        }
    };
}

amx!(bf16, "tdpbf16ps");
amx!(int8, "tdpbusd");

/// Multiplies [`BLOCK_ROWS`] rows with two registers of columns, of bf16; row r's sums go to `sums + r·stride`. One step is four
/// products of four loads.
///
/// # Safety
/// There are [`Tiles`](super::Tiles) of sixteen rows. `depth` words of each row, and of each of the panel's columns, which are no
/// others, can be read; 32 words from each row's place in `sums` can be written.
pub(crate) unsafe fn square_bf16(rows: Rows, panel: *const Line, depth: usize, sums: *mut u32, stride: usize) {
    let mut rest = MaybeUninit::<Rest<BLOCK_ROWS, 2>>::uninit();
    // SAFETY: the caller's promise.
    let rest = unsafe { Rest::write(&mut rest, rows, panel, depth) };
    // SAFETY: as in the blocks.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm6, [{right} + {right_stride}]",
            "tileloadd tmm4, [{left} + {left_stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower} + {left_stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{right} + {right_stride} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 64",
            "add {lower}, 64",
            "add {right}, {step}",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 4f",
            // The rest: one more step, over 32 rows of 64 bytes and then sixteen of 128.
            "mov {left}, {rest}",
            "lea {lower}, [{rest} + 1024]",
            "lea {right}, [{rest} + 2048]",
            "mov {left_stride}, 64",
            "mov {right_stride}, 128",
            "xor {rest:e}, {rest:e}",
            "mov {steps}, 1",
            "jmp 2b",
            "4:",
            "tilestored [{sums} + {sums_stride}], tmm0",
            "tilestored [{sums} + {sums_stride} + 64], tmm1",
            "tilestored [{below} + {sums_stride}], tmm2",
            "tilestored [{below} + {sums_stride} + 64], tmm3",
            left = inout(reg) rows.start => _,
            lower = inout(reg) rows.start.wrapping_add(ROWS * rows.stride) => _,
            left_stride = inout(reg) 4 * rows.stride => _,
            right = inout(reg) panel => _,
            right_stride = inout(reg) 64_usize * 2 => _,
            step = in(reg) 64_usize * 16 * 2,
            steps = inout(reg) depth / 16 => _,
            rest = inout(reg) rest => _,
            sums = in(reg) sums,
            below = in(reg) sums.wrapping_add(ROWS * stride),
            sums_stride = in(reg) 4 * stride,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        amx::Tiles,
        cpu::Cpu,
        element::{Bf16, Element},
    };

    /// Small whole numbers, whose sums of products are exact in bf16 with fp32 sums, and in 8 bits.
    fn number(row: usize, column: usize, values: i32) -> i32 {
        (row * 31 + column * 17 + row * column) as i32 % values
    }

    const CANARY: u32 = 0xdead_beef;

    /// A product of `rows` × `depth` words by `depth` words × 16·`lanes` columns, by the kernel of that shape for `per_word` elements
    /// a word. Its sums lie `stride` words apart, and nothing else is written.
    #[track_caller]
    fn check(per_word: usize, rows: usize, lanes: usize, depth: usize, stride: usize) {
        let word = |elements: &dyn Fn(usize) -> i32| match per_word {
            2 => (0..2).fold(0, |word, i| word | u32::from(Bf16::from_f32(elements(i) as f32).0) << (16 * i)),
            _ => (0..4).fold(0, |word, i| word | (elements(i).cast_unsigned() & 0xff) << (8 * i)),
        };
        // All that 8 bits hold, with and without a sign.
        let left = |row: usize, inner: usize| number(row, inner, 256);
        let right = |inner: usize, column: usize| number(column, inner, 255) - 127;
        // Rows that begin anywhere, and what must not be read.
        let left_stride = depth + 3;
        let mut words = vec![!0; rows * left_stride + 1];
        let mut lines = vec![Line([0; 16]); depth * lanes];
        for (row, words) in words[1..].chunks_exact_mut(left_stride).enumerate() {
            for (k, place) in words[..depth].iter_mut().enumerate() {
                *place = word(&|i| left(row, k * per_word + i));
            }
        }
        for (k, lines) in lines.chunks_exact_mut(lanes).enumerate() {
            for (column, place) in lines.iter_mut().flat_map(|line| &mut line.0).enumerate() {
                *place = word(&|i| right(k * per_word + i, column));
            }
        }
        let mut sums = vec![CANARY; BLOCK_ROWS * stride + 64];
        let (panel, place) = (lines.as_ptr(), sums.as_mut_ptr());
        let rows_of = Rows { start: words[1..].as_ptr(), stride: left_stride, count: rows };
        // SAFETY: the CPU has AMX; both factors have `depth` words, `sums` has room.
        unsafe {
            let _tiles = Tiles::of_rows(rows);
            match (per_word, rows, lanes) {
                (2, BLOCK_ROWS, BLOCK_LANES) => bf16::block(rows_of, panel, depth, place),
                (4, BLOCK_ROWS, BLOCK_LANES) => int8::block(rows_of, panel, depth, place),
                (2, BLOCK_ROWS, 2) => square_bf16(rows_of, panel, depth, place, stride),
                (2, _, 1) => bf16::strip::<1>(rows_of, panel, depth, place, stride),
                (2, _, 2) => bf16::strip::<2>(rows_of, panel, depth, place, stride),
                (2, _, 3) => bf16::strip::<3>(rows_of, panel, depth, place, stride),
                (2, _, 4) => bf16::strip::<4>(rows_of, panel, depth, place, stride),
                (2, _, 5) => bf16::strip::<5>(rows_of, panel, depth, place, stride),
                (4, _, 1) => int8::strip::<1>(rows_of, panel, depth, place, stride),
                (4, _, 2) => int8::strip::<2>(rows_of, panel, depth, place, stride),
                (4, _, 3) => int8::strip::<3>(rows_of, panel, depth, place, stride),
                (4, _, 4) => int8::strip::<4>(rows_of, panel, depth, place, stride),
                (4, _, 5) => int8::strip::<5>(rows_of, panel, depth, place, stride),
                other => panic!("no kernel for {other:?}"),
            }
        }
        for (at, &sum) in sums.iter().enumerate() {
            let (row, column) = (at / stride, at % stride);
            let at = format!("{rows} rows, {lanes} lanes, {depth} words of {per_word}: {row}, {column}");
            if row >= rows || column >= 16 * lanes {
                assert_eq!(sum, CANARY, "{at}");
                continue;
            }
            let expected: i32 = (0..depth * per_word).map(|i| left(row, i) * right(i, column)).sum();
            let found = if per_word == 2 { f32::from_bits(sum) as i32 } else { sum.cast_signed() };
            assert_eq!(found, expected, "{at}");
        }
    }

    #[test]
    fn every_shape_is_exact() {
        if !Cpu::detect().amx {
            eprintln!("SKIPPED: no AMX");
            return;
        }
        for depth in [0, 1, 7, 15, 16, 17, 32, 45] {
            for per_word in [2, 4] {
                check(per_word, BLOCK_ROWS, BLOCK_LANES, depth, 16 * BLOCK_LANES);
                for rows in [1, 2, 7, 15, 16] {
                    for lanes in 1..=MOST_LANES {
                        check(per_word, rows, lanes, depth, 16 * lanes);
                        check(per_word, rows, lanes, depth, 16 * lanes + 5);
                    }
                }
            }
            check(2, BLOCK_ROWS, 2, depth, 32);
            check(2, BLOCK_ROWS, 2, depth, 37);
        }
    }
}
