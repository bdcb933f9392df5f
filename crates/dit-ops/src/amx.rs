//! The inner loops with AMX: eight registers of sixteen rows of 64 bytes, and an instruction that multiplies two of them.
//!
//! What a register of the right factor wants to be, sixteen words of the inner dimension by sixteen columns, is sixteen lines of a
//! panel, so that panels are those of the AVX-512 kernels. The left factor's registers are loaded as its rows lie; rows that begin
//! at multiples of 64 bytes load at twice the speed.

use std::{arch::asm, mem::MaybeUninit};

use crate::gemm::Line;

/// Rows of a register, and words of each.
pub(crate) const ROWS: usize = 16;
/// Rows and registers of a [`bf16::block`].
pub(crate) const BLOCK_ROWS: usize = 2 * ROWS;
pub(crate) const BLOCK_LANES: usize = 3;
/// Most registers of a strip's results.
pub(crate) const MOST_LANES: usize = 5;

/// Asks the system for the registers, which it hands out to processes that ask; whether they are there.
#[cfg(target_os = "linux")]
pub(crate) fn request() -> bool {
    /// Of the registers' contents in a process' state (Linux, `Documentation/arch/x86/xstate.rst`).
    const TILE_DATA: libc::c_long = 18;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    // SAFETY: the call only changes what of this process' registers is saved; it fails where it knows none of that.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn request() -> bool {
    false
}

/// What `ldtilecfg` reads: palette 1 has eight registers of up to sixteen rows of up to 64 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Registers of the left factor and of results have `rows` rows, the right factor's all sixteen.
    fn of_rows(rows: usize) -> Self {
        let mut configuration = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..7].fill(rows.min(ROWS) as u8);
        configuration.rows[7] = ROWS as u8;
        configuration
    }
}

/// This thread's registers, shaped for our kernels; what shape they had before comes back with the end of its life, as oneDNN
/// might count on it.
pub(crate) struct Tiles {
    before: Configuration,
}

impl Tiles {
    /// Registers for `rows` rows, at most sixteen, of the left factor.
    ///
    /// # Safety
    /// The CPU has AMX, and [`request`] was granted.
    pub(crate) unsafe fn of_rows(rows: usize) -> Self {
        let mut before = MaybeUninit::<Configuration>::uninit();
        // SAFETY: the instruction writes all 64 bytes; any are a configuration.
        let before = unsafe {
            asm!("sttilecfg [{}]", in(reg) before.as_mut_ptr(), options(nostack, preserves_flags));
            before.assume_init()
        };
        let mut tiles = Self { before };
        tiles.set_rows(rows);
        tiles
    }

    /// The same registers for another number of rows. Their contents are lost.
    pub(crate) fn set_rows(&mut self, rows: usize) {
        // SAFETY: there are registers, or `self` would not be.
        unsafe { load(&Configuration::of_rows(rows)) }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: as in `set_rows`. A configuration of palette 0 gives the registers back.
        unsafe { load(&self.before) }
    }
}

/// # Safety
/// The CPU has AMX, and [`request`] was granted.
unsafe fn load(configuration: &Configuration) {
    // SAFETY: 64 bytes are read, of a configuration that is valid.
    unsafe { asm!("ldtilecfg [{}]", in(reg) configuration, options(nostack, readonly, preserves_flags)) }
}

/// The left factor of a tile: rows of words.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub start: *const u32,
    /// Words from one row to the next.
    pub stride: usize,
    /// Rows that there are.
    pub count: usize,
}

/// A panel of the right factor, or some neighbouring registers of it.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub start: *const Line,
    /// Lines from one word of the inner dimension to the next.
    pub stride: usize,
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
    /// `depth` words of each row and of the panel can be read.
    unsafe fn write(place: &mut MaybeUninit<Self>, rows: Rows, panel: Panel, depth: usize) -> *const Self {
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
                *line = unsafe { *panel.start.add(word * panel.stride + lane) };
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
            right = inout(reg) $panel.start => _,
            right_stride = inout(reg) 64 * $panel.stride => _,
            step = in(reg) 64 * 16 * $panel.stride,
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
            /// There are [`Tiles`] of sixteen rows. `depth` words of each row and of the panel can be read; `sums` has room.
            pub(crate) unsafe fn block(rows: Rows, panel: Panel, depth: usize, sums: *mut u32) {
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
                        right = inout(reg) panel.start => _,
                        right_stride = inout(reg) 64 * panel.stride => _,
                        ahead = in(reg) 64 * 16 * panel.stride,
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
            /// There are [`Tiles`] of `rows.count` rows. `depth` words of each row and of the panel can be read; 16·`LANES` words from
            /// each row's place in `sums` can be written.
            pub(crate) unsafe fn strip<const LANES: usize>(
                rows: Rows,
                panel: Panel,
                depth: usize,
                sums: *mut u32,
                stride: usize,
            ) {
                const { assert!(LANES > 0 && LANES <= MOST_LANES) };
                let mut rest = MaybeUninit::<Rest<ROWS, LANES>>::uninit();
                // SAFETY: the caller's promise.
                let rest = unsafe { Rest::write(&mut rest, rows, panel, depth) };
                // SAFETY: as in `block`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::Cpu,
        element::{Bf16, Element},
    };

    fn configuration() -> [u8; 64] {
        let mut bytes = [0; 64];
        // SAFETY: the CPU has AMX, as its callers see to; 64 bytes are written.
        unsafe { asm!("sttilecfg [{}]", in(reg) &mut bytes, options(nostack, preserves_flags)) };
        bytes
    }

    #[test]
    fn registers_come_back_as_they_were() {
        if !Cpu::detect().amx {
            return;
        }
        let unused = configuration();
        // SAFETY: the CPU has AMX.
        let outer = unsafe { Tiles::of_rows(7) };
        let own = configuration();
        assert_ne!(own, unused);
        // SAFETY: as above.
        drop(unsafe { Tiles::of_rows(16) });
        assert_eq!(configuration(), own);
        drop(outer);
        assert_eq!(configuration(), unused);
    }

    /// Small whole numbers, whose sums of products are exact in bf16 with fp32 sums, and in 8 bits.
    fn number(row: usize, column: usize, most: i32) -> i32 {
        (row * 31 + column * 17 + row * column) as i32 % (most + 1)
    }

    /// A product of `rows` × `depth` words by `depth` words × 16·`lanes` columns, in either kind.
    #[track_caller]
    fn check(rows: usize, lanes: usize, depth: usize) {
        for per_word in [2, 4] {
            let word = |elements: &dyn Fn(usize) -> i32| match per_word {
                2 => (0..2).fold(0, |word, i| word | u32::from(Bf16::from_f32(elements(i) as f32).0) << (16 * i)),
                _ => (0..4).fold(0, |word, i| word | (elements(i).cast_unsigned() & 0xff) << (8 * i)),
            };
            let left = |row: usize, inner: usize| number(row, inner, 15);
            let right = |inner: usize, column: usize| number(column, inner, 15) - 7;
            // Rows that begin anywhere, and what must not be read.
            let stride = depth + 3;
            let mut words = vec![!0; rows * stride + 1];
            let mut lines = vec![Line([0; 16]); depth * lanes];
            for (row, words) in words[1..].chunks_exact_mut(stride).enumerate() {
                for (k, place) in words[..depth].iter_mut().enumerate() {
                    *place = word(&|i| left(row, k * per_word + i));
                }
            }
            for (k, lines) in lines.chunks_exact_mut(lanes).enumerate() {
                for (column, place) in lines.iter_mut().flat_map(|line| &mut line.0).enumerate() {
                    *place = word(&|i| right(k * per_word + i, column));
                }
            }
            let mut sums = vec![!0; rows * 16 * lanes];
            let panel = Panel { start: lines.as_ptr(), stride: lanes };
            let place = sums.as_mut_ptr();
            let rows_of = Rows { start: words[1..].as_ptr(), stride, count: rows };
            // SAFETY: the CPU has AMX; both factors have `depth` words, `sums` has room.
            unsafe {
                let _tiles = Tiles::of_rows(rows);
                match (per_word, rows, lanes) {
                    (2, BLOCK_ROWS, _) => bf16::block(rows_of, panel, depth, place),
                    (4, BLOCK_ROWS, _) => int8::block(rows_of, panel, depth, place),
                    (2, _, 1) => bf16::strip::<1>(rows_of, panel, depth, place, 16),
                    (2, _, 2) => bf16::strip::<2>(rows_of, panel, depth, place, 32),
                    (2, _, 3) => bf16::strip::<3>(rows_of, panel, depth, place, 48),
                    (2, _, 4) => bf16::strip::<4>(rows_of, panel, depth, place, 64),
                    (2, ..) => bf16::strip::<5>(rows_of, panel, depth, place, 80),
                    (_, _, 1) => int8::strip::<1>(rows_of, panel, depth, place, 16),
                    (_, _, 2) => int8::strip::<2>(rows_of, panel, depth, place, 32),
                    (_, _, 3) => int8::strip::<3>(rows_of, panel, depth, place, 48),
                    (_, _, 4) => int8::strip::<4>(rows_of, panel, depth, place, 64),
                    _ => int8::strip::<5>(rows_of, panel, depth, place, 80),
                }
            }
            for (at, &sum) in sums.iter().enumerate() {
                let (row, column) = (at / (16 * lanes), at % (16 * lanes));
                let expected: i32 = (0..depth * per_word).map(|i| left(row, i) * right(i, column)).sum();
                let found = if per_word == 2 { f32::from_bits(sum) as i32 } else { sum.cast_signed() };
                assert_eq!(found, expected, "{rows} rows, {lanes} lanes, {depth} words of {per_word}: {row}, {column}");
            }
        }
    }

    #[test]
    fn every_shape_is_exact() {
        if !Cpu::detect().amx {
            return;
        }
        for depth in [0, 1, 7, 15, 16, 17, 32, 45] {
            check(BLOCK_ROWS, BLOCK_LANES, depth);
            for rows in [1, 2, 7, 15, 16] {
                for lanes in 1..=MOST_LANES {
                    check(rows, lanes, depth);
                }
            }
        }
    }
}
