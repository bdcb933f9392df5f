//! Rows by panels: how [`blocks`](crate::blocks) copies factors and multiplies them. In fp32 a word of sixteen columns is multiplied by a lane of
//! a register, in which the words of four rows lie; bf16 and int8 go by matrix instructions (of Arm 8.6), each of which multiplies two words of
//! two rows by those of two columns. Where there are none, bf16 is widened when it is copied, and int8 goes by lanes, of signed numbers both: codes
//! are lowered by 128 when they are copied.

use std::arch::{aarch64::*, asm};

use crate::{
    blocks::{ROWS, blocks},
    cpu::Cpu,
    gemm::Line,
    memory::{prefetch, prefetch_far},
};

/// Words that rows are copied by at once.
const AT_ONCE: usize = 4;
/// Words by which a lane's lines are asked for before they are copied.
const AHEAD: usize = 16;

const _: () = assert!(ROWS == 6 && AT_ONCE <= crate::blocks::MOST_AT_ONCE);

/// Four of the words of a row from `start` on, of which there are `words`; zeros past them.
///
/// # Safety
/// So many words can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load_words(start: *const u32, words: usize) -> uint32x4_t {
    if words >= AT_ONCE {
        // SAFETY: the caller's promise.
        return unsafe { vld1q_u32(start) };
    }
    let mut some = [0; AT_ONCE];
    // SAFETY: the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(start, some.as_mut_ptr(), words);
        vld1q_u32(some.as_ptr())
    }
}

/// Sixteen words.
///
/// # Safety
/// They can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load_line(line: *const u32) -> [uint32x4_t; 4] {
    // SAFETY: the caller's promise.
    unsafe { [vld1q_u32(line), vld1q_u32(line.add(4)), vld1q_u32(line.add(8)), vld1q_u32(line.add(12))] }
}

/// Calls `put` with the place of each four words, and these of six rows; zeros for rows that are not there.
///
/// # Safety
/// Each of `rows` rows, `stride` words apart, has `words` words.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn for_each_four(
    left: *const u32,
    stride: usize,
    rows: usize,
    words: usize,
    mut put: impl FnMut(usize, [uint32x4_t; ROWS]),
) {
    for first in (0..words).step_by(AT_ONCE) {
        let mut six = [vdupq_n_u32(0); ROWS];
        for (row, words_of_row) in six.iter_mut().enumerate() {
            let start = left.wrapping_add(row * stride + first);
            if first % 16 == 0 {
                // The next tile's row in its place.
                prefetch_far(start.wrapping_add(ROWS * stride));
            }
            if row < rows {
                // SAFETY: the caller's promise.
                *words_of_row = unsafe { load_words(start, words - first) };
            }
        }
        put(first, six);
    }
}

/// Word w of six rows goes to `place + w·apart`, one row's after the other's.
///
/// # Safety
/// Six words from each place are writable.
#[target_feature(enable = "neon")]
#[inline]
pub(crate) unsafe fn store_side_by_side([a, b, c, d, e, f]: [uint32x4_t; ROWS], place: *mut u32, apart: usize) {
    let four = transpose_four([a, b, c, d]);
    let (low, high) = (vzip1q_u32(e, f), vzip2q_u32(e, f));
    let two = [vget_low_u32(low), vget_high_u32(low), vget_low_u32(high), vget_high_u32(high)];
    for (word, (four, two)) in four.into_iter().zip(two).enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let place = place.add(word * apart);
            vst1q_u32(place, four);
            vst1_u32(place.add(4), two);
        }
    }
}

/// Four words of four rows: word j of each in register j.
#[target_feature(enable = "neon")]
#[inline]
pub(crate) fn transpose_four([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let (ac_low, ac_high) = (vzip1q_u32(a, c), vzip2q_u32(a, c));
    let (bd_low, bd_high) = (vzip1q_u32(b, d), vzip2q_u32(b, d));
    [vzip1q_u32(ac_low, bd_low), vzip2q_u32(ac_low, bd_low), vzip1q_u32(ac_high, bd_high), vzip2q_u32(ac_high, bd_high)]
}

/// The first halves of two registers, and the second ones.
#[target_feature(enable = "neon")]
#[inline]
fn halves(a: uint32x4_t, b: uint32x4_t) -> [uint32x4_t; 2] {
    let (a, b) = (vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b));
    [vreinterpretq_u32_u64(vzip1q_u64(a, b)), vreinterpretq_u32_u64(vzip2q_u64(a, b))]
}

/// The two bf16 of each word as fp32: bits of one plane, then of the other.
#[target_feature(enable = "neon")]
#[inline]
fn widened(words: uint32x4_t) -> [uint32x4_t; 2] {
    [vshlq_n_u32::<16>(words), vandq_u32(words, vdupq_n_u32(0xffff_0000))]
}

#[target_feature(enable = "neon")]
#[inline]
fn same(words: uint32x4_t) -> [uint32x4_t; 1] {
    [words]
}

/// Unsigned bytes less 128, as signed ones.
#[target_feature(enable = "neon")]
#[inline]
fn lowered(words: uint32x4_t) -> [uint32x4_t; 1] {
    [veorq_u32(words, vdupq_n_u32(0x8080_8080))]
}

/// One module for each kind of word that is multiplied by lanes; `planes` are made when it is copied.
macro_rules! by_lanes {
    ($module:ident, $features:literal, $planes:literal, $of_rows:ident, $of_weights:ident, $add:ident) => {
        pub(crate) mod $module {
            use super::*;

            const PLANES: usize = $planes;
            const MULTIPLE: usize = 1;
            blocks!($features);

            /// # Safety
            /// As [`multiply`], and as [`blocks`](crate::blocks) has it.
            #[target_feature(enable = $features)]
            unsafe fn copy_rows(left: *const u32, stride: usize, rows: usize, words: usize, place: *mut u32) {
                // SAFETY: the caller's promise.
                unsafe {
                    for_each_four(left, stride, rows, words, |first, [a, b, c, d, e, f]| {
                        // Not by `map`, which the compiler leaves a function that passes through memory.
                        let (a, b, c) = ($of_rows(a), $of_rows(b), $of_rows(c));
                        let (d, e, f) = ($of_rows(d), $of_rows(e), $of_rows(f));
                        for plane in 0..PLANES {
                            let place = place.add((first * PLANES + plane) * ROWS);
                            let rows = [a[plane], b[plane], c[plane], d[plane], e[plane], f[plane]];
                            store_side_by_side(rows, place, PLANES * ROWS);
                        }
                    });
                }
            }

            /// # Safety
            /// As [`multiply`], and as [`blocks`](crate::blocks) has it.
            #[target_feature(enable = $features)]
            unsafe fn copy_lane<const LANES: usize>(lines: *const Line, words: usize, place: *mut u32) {
                for word in 0..words {
                    let line = lines.wrapping_add(word * LANES).cast::<u32>();
                    prefetch(line.wrapping_add(16 * LANES * AHEAD));
                    // SAFETY: the caller's promise.
                    unsafe {
                        // All before the first is stored, which the compiler would not know to be elsewhere.
                        let quarters = load_line(line);
                        for (quarter, words) in quarters.into_iter().enumerate() {
                            for (plane, weights) in $of_weights(words).into_iter().enumerate() {
                                vst1q_u32(place.add((word * PLANES + plane) * 16 + 4 * quarter), weights);
                            }
                        }
                    }
                }
            }

            use super::$add as add_products;
        }
    };
}

by_lanes!(fp32, "neon", 1, same, same, add_fp32);
by_lanes!(bf16_widened, "neon", 2, widened, widened, add_fp32);
by_lanes!(int8_by_lanes, "neon,dotprod", 1, lowered, same, add_int8);

/// The products of a tile's and a lane's fp32 words are added to the sums if it `goes_on`, or become them. In the tile word w of row r lies at
/// w·`WORD` + r·`ROW`, in the lane its line at 16·w; rows of sums lie apart.
///
/// # Safety
/// `tile` has a word for each of [`ROWS`] rows and `depth` words, `lane` a line for each of these; there are places for [`ROWS`] rows of `sums`,
/// and nobody else's.
#[target_feature(enable = "neon")]
#[inline]
pub(crate) unsafe fn add_fp32<const WORD: usize, const ROW: usize>(
    tile: *const u32,
    lane: *const u32,
    depth: usize,
    (sums, apart): (*mut u32, usize),
    goes_on: bool,
) {
    let (mut tile, mut lane) = (tile.cast::<f32>(), lane.cast::<f32>());
    let place = |row: usize, quarter: usize| sums.wrapping_add(row * apart + 4 * quarter).cast::<f32>();
    let mut accumulators = [[vdupq_n_f32(0.0); 4]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        if goes_on {
            for (row, accumulators) in accumulators.iter_mut().enumerate() {
                *accumulators = std::array::from_fn(|quarter| vld1q_f32(place(row, quarter)));
            }
        }
        for _ in 0..depth {
            let weights: [float32x4_t; 4] = std::array::from_fn(|quarter| vld1q_f32(lane.add(4 * quarter)));
            if ROW == 1 {
                let (four, two) = (vld1q_f32(tile), vld1_f32(tile.add(4)));
                for (quarter, weights) in weights.into_iter().enumerate() {
                    let sum = |row: usize| accumulators[row][quarter];
                    let [a, b, c, d, e, f] = [sum(0), sum(1), sum(2), sum(3), sum(4), sum(5)];
                    accumulators[0][quarter] = vfmaq_laneq_f32::<0>(a, weights, four);
                    accumulators[1][quarter] = vfmaq_laneq_f32::<1>(b, weights, four);
                    accumulators[2][quarter] = vfmaq_laneq_f32::<2>(c, weights, four);
                    accumulators[3][quarter] = vfmaq_laneq_f32::<3>(d, weights, four);
                    accumulators[4][quarter] = vfmaq_lane_f32::<0>(e, weights, two);
                    accumulators[5][quarter] = vfmaq_lane_f32::<1>(f, weights, two);
                }
            } else {
                for (row, accumulators) in accumulators.iter_mut().enumerate() {
                    let activation = vld1q_dup_f32(tile.add(row * ROW));
                    for (accumulator, weights) in accumulators.iter_mut().zip(weights) {
                        *accumulator = vfmaq_f32(*accumulator, weights, activation);
                    }
                }
            }
            (tile, lane) = (tile.add(WORD), lane.add(16));
        }
        for (row, accumulators) in accumulators.into_iter().enumerate() {
            for (quarter, accumulator) in accumulators.into_iter().enumerate() {
                vst1q_f32(place(row, quarter), accumulator);
            }
        }
    }
}

/// The same of int8, signed all of them, four to a word, added up in int32.
///
/// # Safety
/// As [`add_fp32`].
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn add_int8<const WORD: usize, const ROW: usize>(
    mut tile: *const u32,
    mut lane: *const u32,
    depth: usize,
    (sums, apart): (*mut u32, usize),
    goes_on: bool,
) {
    /// Of the columns of a quarter, by a lane of a register of rows.
    macro_rules! dot {
        ($sums:expr, $weights:expr, $rows:expr, $lane:literal) => {
            asm!(
                concat!("sdot {sums:v}.4s, {weights:v}.16b, {rows:v}.4b[", $lane, "]"),
                sums = inout(vreg) $sums,
                weights = in(vreg) $weights,
                rows = in(vreg) $rows,
                options(pure, nomem, nostack, preserves_flags),
            )
        };
    }
    const { assert!(WORD == ROWS && ROW == 1) };
    let place = |row: usize, quarter: usize| sums.wrapping_add(row * apart + 4 * quarter);
    let mut accumulators = [[vdupq_n_u32(0); 4]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        if goes_on {
            for (row, accumulators) in accumulators.iter_mut().enumerate() {
                *accumulators = std::array::from_fn(|quarter| vld1q_u32(place(row, quarter)));
            }
        }
        for _ in 0..depth {
            let (four, two) = (vld1q_u32(tile), vld1_u32(tile.add(4)));
            let two = vcombine_u32(two, two);
            for (quarter, weights) in load_line(lane).into_iter().enumerate() {
                dot!(accumulators[0][quarter], weights, four, "0");
                dot!(accumulators[1][quarter], weights, four, "1");
                dot!(accumulators[2][quarter], weights, four, "2");
                dot!(accumulators[3][quarter], weights, four, "3");
                dot!(accumulators[4][quarter], weights, two, "0");
                dot!(accumulators[5][quarter], weights, two, "1");
            }
            (tile, lane) = (tile.add(WORD), lane.add(16));
        }
        for (row, accumulators) in accumulators.into_iter().enumerate() {
            for (quarter, accumulator) in accumulators.into_iter().enumerate() {
                vst1q_u32(place(row, quarter), accumulator);
            }
        }
    }
}

/// One module for each kind of word that is multiplied by a matrix instruction: two rows' two words, row by row, by two columns' two words,
/// column by column.
macro_rules! by_matrices {
    ($module:ident, $features:literal, $instruction:literal) => {
        pub(crate) mod $module {
            use super::*;

            const PLANES: usize = 1;
            const MULTIPLE: usize = 2;
            blocks!($features);

            /// # Safety
            /// As [`multiply`], and as [`blocks`](crate::blocks) has it.
            #[target_feature(enable = $features)]
            unsafe fn copy_rows(left: *const u32, stride: usize, rows: usize, words: usize, place: *mut u32) {
                // SAFETY: the caller's promise.
                unsafe {
                    for_each_four(left, stride, rows, words, |first, [a, b, c, d, e, f]| {
                        for (pair, [one, other]) in [[a, b], [c, d], [e, f]].into_iter().enumerate() {
                            for (half, words) in halves(one, other).into_iter().enumerate() {
                                vst1q_u32(place.add((first + 2 * half) * ROWS + 4 * pair), words);
                            }
                        }
                    });
                }
            }

            /// # Safety
            /// As [`multiply`], and as [`blocks`](crate::blocks) has it.
            #[target_feature(enable = $features)]
            unsafe fn copy_lane<const LANES: usize>(lines: *const Line, words: usize, place: *mut u32) {
                for word in (0..words).step_by(2) {
                    let line = lines.wrapping_add(word * LANES).cast::<u32>();
                    let next = line.wrapping_add(16 * LANES);
                    prefetch(line.wrapping_add(16 * LANES * AHEAD));
                    prefetch(next.wrapping_add(16 * LANES * AHEAD));
                    // SAFETY: the caller's promise.
                    unsafe {
                        let first = load_line(line);
                        let second = if word + 1 < words { load_line(next) } else { [vdupq_n_u32(0); 4] };
                        for (quarter, (first, second)) in first.into_iter().zip(second).enumerate() {
                            let place = place.add(word * 16 + 8 * quarter);
                            vst1q_u32(place, vzip1q_u32(first, second));
                            vst1q_u32(place.add(4), vzip2q_u32(first, second));
                        }
                    }
                }
            }

            /// # Safety
            /// As [`multiply`], and as [`blocks`](crate::blocks) has it.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn add_products<const WORD: usize, const ROW: usize>(
                mut tile: *const u32,
                mut lane: *const u32,
                depth: usize,
                (sums, apart): (*mut u32, usize),
                goes_on: bool,
            ) {
                const { assert!(WORD == ROWS && ROW == 1) };
                // Of two rows and two columns each.
                let mut accumulators = [[vdupq_n_u32(0); 8]; ROWS / 2];
                let place = |row: usize, quarter: usize| sums.wrapping_add(row * apart + 4 * quarter);
                // SAFETY: the caller's promise.
                unsafe {
                    if goes_on {
                        for (pair, accumulators) in accumulators.iter_mut().enumerate() {
                            for (quarter, two) in accumulators.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                                let rows = [0, 1].map(|row| vld1q_u32(place(2 * pair + row, quarter)));
                                *two = halves(rows[0], rows[1]);
                            }
                        }
                    }
                    for _ in 0..depth / 2 {
                        let rows: [uint32x4_t; ROWS / 2] = std::array::from_fn(|pair| vld1q_u32(tile.add(4 * pair)));
                        for columns in 0..8 {
                            let weights = vld1q_u32(lane.add(4 * columns));
                            for (pair, &rows) in rows.iter().enumerate() {
                                asm!(
                                    $instruction,
                                    sums = inout(vreg) accumulators[pair][columns],
                                    rows = in(vreg) rows,
                                    columns = in(vreg) weights,
                                    options(pure, nomem, nostack, preserves_flags),
                                );
                            }
                        }
                        (tile, lane) = (tile.add(2 * ROWS), lane.add(32));
                    }
                    for (pair, accumulators) in accumulators.iter().enumerate() {
                        for (quarter, two) in accumulators.as_chunks::<2>().0.iter().enumerate() {
                            for (row, sums) in halves(two[0], two[1]).into_iter().enumerate() {
                                vst1q_u32(place(2 * pair + row, quarter), sums);
                            }
                        }
                    }
                }
            }
        }
    };
}

by_matrices!(bf16_matrices, "neon,bf16", "bfmmla {sums:v}.4s, {rows:v}.8h, {columns:v}.8h");
by_matrices!(int8_matrices, "neon,i8mm", "usmmla {sums:v}.4s, {rows:v}.16b, {columns:v}.16b");

/// bf16 by what the CPU has.
pub(crate) mod bf16 {
    use super::{Cpu, Line, bf16_matrices, bf16_widened};

    /// # Safety
    /// As of the other modules, of a CPU with NEON.
    pub(crate) unsafe fn multiply<const LANES: usize>(
        left: *const u32,
        stride: usize,
        rows: usize,
        panels: (*const Line, usize),
        depth: usize,
        sums: *mut u32,
        apart: (usize, usize),
    ) {
        // SAFETY: the CPU has the instructions; else the caller's promise.
        unsafe {
            if Cpu::detect().neon_bf16 {
                bf16_matrices::multiply::<LANES>(left, stride, rows, panels, depth, sums, apart);
            } else {
                bf16_widened::multiply::<LANES>(left, stride, rows, panels, depth, sums, apart);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: usize = 3;

    /// `multiply` of a module.
    type Multiply = unsafe fn(*const u32, usize, usize, (*const Line, usize), usize, *mut u32, (usize, usize));

    /// Compares with sums in double precision.
    fn check(
        name: &str,
        multiply: Multiply,
        value: fn(u32) -> Vec<f64>,
        weight: fn(u32) -> Vec<f64>,
        sum: fn(u32) -> f64,
        mask: [u32; 2],
    ) {
        let mut state = 7_u32;
        let mut word = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state ^ state >> 15) & mask[0] | mask[1]
        };
        // A large product first: what it leaves behind in the copies must not show.
        for rows in [24, 1, 5, 6, 7, 13] {
            for depth in [300, 0, 1, 2, 3, 7, 8, 129, 257] {
                for (count, stride) in [(1, depth), (2, depth + 5)] {
                    let left: Vec<u32> = (0..rows * stride).map(|_| word()).collect();
                    let lines: Vec<Line> =
                        (0..LANES * count * depth).map(|_| Line(std::array::from_fn(|_| word()))).collect();
                    let width = 16 * LANES;
                    let apart = rows.next_multiple_of(ROWS) * width;
                    let mut sums = vec![u32::MAX; count * apart];
                    // SAFETY: the CPU has the instructions; rows, panels and sums are as large as is said.
                    unsafe {
                        let panels = (lines.as_ptr(), count);
                        multiply(left.as_ptr(), stride, rows, panels, depth, sums.as_mut_ptr(), (apart, width));
                    }
                    for (at, &found) in sums.iter().enumerate() {
                        let (panel, row, column) = (at / apart, at % apart / width, at % width);
                        if row >= rows {
                            continue;
                        }
                        let (mut expected, mut magnitude) = (0.0, 0.0);
                        for k in 0..depth {
                            let line = lines[(panel * depth + k) * LANES + column / 16];
                            for (a, b) in value(left[row * stride + k]).into_iter().zip(weight(line.0[column % 16])) {
                                expected += a * b;
                                magnitude += (a * b).abs();
                            }
                        }
                        let error = (sum(found) - expected).abs();
                        let name =
                            format!("{name}, {rows} rows, {depth} words, panel {panel} of {count}: {row}, {column}");
                        assert!(error <= 1e-6 * magnitude, "{name}: {} for {expected}", sum(found));
                    }
                }
            }
        }
    }

    fn halves_of(word: u32) -> Vec<f64> {
        [word << 16, word & 0xffff_0000].map(|bits| f64::from(f32::from_bits(bits))).into()
    }

    #[test]
    fn sums_are_those_of_the_products() {
        let of_float = |bits: u32| f64::from(f32::from_bits(bits));
        // Exponents near that of 1.
        check(
            "fp32",
            fp32::multiply::<LANES>,
            |word| vec![f64::from(f32::from_bits(word))],
            |word| vec![f64::from(f32::from_bits(word))],
            of_float,
            [0x80ff_ffff, 0x3f00_0000],
        );
        let near_one = [0x80ff_80ff, 0x3f00_3f00];
        check("bf16, widened", bf16_widened::multiply::<LANES>, halves_of, halves_of, of_float, near_one);
        if std::arch::is_aarch64_feature_detected!("bf16") {
            check("bf16", bf16_matrices::multiply::<LANES>, halves_of, halves_of, of_float, near_one);
        } else {
            eprintln!("SKIPPED: no bf16");
        }
        if std::arch::is_aarch64_feature_detected!("i8mm") {
            let unsigned = |word: u32| word.to_le_bytes().map(f64::from).into();
            let signed = |word: u32| word.to_le_bytes().map(|byte| f64::from(byte.cast_signed())).into();
            let of_integer = |bits: u32| f64::from(bits.cast_signed());
            check("int8", int8_matrices::multiply::<LANES>, unsigned, signed, of_integer, [!0, 0]);
        } else {
            eprintln!("SKIPPED: no int8 matrix products");
        }
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            let lowered = |word: u32| word.to_le_bytes().map(|byte| f64::from(byte) - 128.0).into();
            let signed = |word: u32| word.to_le_bytes().map(|byte| f64::from(byte.cast_signed())).into();
            let of_integer = |bits: u32| f64::from(bits.cast_signed());
            check("int8, by lanes", int8_by_lanes::multiply::<LANES>, lowered, signed, of_integer, [!0, 0]);
        } else {
            eprintln!("SKIPPED: no int8 products");
        }
    }
}
