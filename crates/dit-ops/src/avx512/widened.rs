//! bf16 by products of fp32, for CPUs whose AVX-512 has none of bf16 pairs, or only [slow ones](crate::Cpu::avx512_bf16_products). Both factors are
//! widened a stretch at a time, the panel's to half of a first-level cache, the rows' to the second-level one, once for all that they are
//! multiplied by. Half of fp32's memory is read, in its time.

use std::arch::x86_64::*;

use super::{
    tile::{bf16_widened, fp32, pairs},
    vector,
};
use crate::{
    blocks::{COPIES, ask_for_part},
    gemm::Line,
    memory::prefetch_far,
};

/// Words of the inner dimension at a time.
const STRETCH: usize = 64;
/// Numbers of a widened row.
const NUMBERS: usize = 2 * STRETCH;
/// Fewest rows that are worth widening a panel for; fewer are multiplied where they lie, and give the same bits.
const FEWEST_WIDENED: usize = 12;

/// Multiplies `rows` rows, `stride` words apart, with `count` panels of 16·`LANES` columns that follow one another; row r's sums (bits of fp32) by
/// panel p go to `sums + p·sums_apart + r·sums_stride`.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL; each row has `depth` words, each panel `depth` times `LANES` lines; 16·`LANES` words from each row's places in
/// `sums` are writable, and nobody else's.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn multiply<const LANES: usize>(
    left: *const u32,
    stride: usize,
    rows: usize,
    (panels, count): (*const Line, usize),
    depth: usize,
    sums: *mut u32,
    (sums_apart, sums_stride): (usize, usize),
) {
    if rows < FEWEST_WIDENED {
        for panel in 0..count {
            // SAFETY: the caller's promises.
            unsafe {
                let (lines, sums) = (panels.add(panel * depth * LANES), sums.add(panel * sums_apart));
                where_they_lie::<LANES>(left, stride, rows, lines, depth, sums, sums_stride);
            }
        }
        return;
    }
    COPIES.with_borrow_mut(|copies| {
        let of_panel = copies.at_least(NUMBERS * (16 * LANES + rows)).as_mut_ptr();
        let of_rows = of_panel.wrapping_add(NUMBERS * 16 * LANES);
        let mut done = 0;
        while done == 0 || done < depth {
            let words = STRETCH.min(depth - done);
            // SAFETY: the rows' words and the panels' lines from `done` on, and the sums, are there, as the caller promises; the copies have
            // room for a stretch of each, and begin at cache lines.
            unsafe {
                for row in 0..rows {
                    widen_row(left.add(row * stride + done), words, of_rows.add(row * NUMBERS));
                }
                let lines_at = |panel: usize, done: usize| panels.wrapping_add((panel * depth + done) * LANES);
                for panel in 0..count {
                    widen_lines::<LANES>(lines_at(panel, done), words, of_panel);
                    let next = if panel + 1 < count {
                        lines_at(panel + 1, done)
                    } else {
                        lines_at(0, done + STRETCH) // or what follows it, after the last stretch
                    };
                    let (lines, sums) = (of_panel.cast::<Line>(), (sums.add(panel * sums_apart), sums_stride));
                    widened::<LANES>(of_rows, rows, (lines, next), 2 * words, sums, done > 0);
                }
            }
            done += STRETCH;
        }
    });
}

/// [`multiply`] of few rows by one panel: weights are widened in registers, for four rows at a time.
///
/// # Safety
/// As that.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn where_they_lie<const LANES: usize>(
    left: *const u32,
    stride: usize,
    rows: usize,
    lines: *const Line,
    depth: usize,
    sums: *mut u32,
    sums_stride: usize,
) {
    let mut first = 0;
    while first < rows {
        let start = |row: usize| left.wrapping_add((first + row) * stride);
        let place = sums.wrapping_add(first * sums_stride);
        // SAFETY: the caller's promises.
        unsafe {
            first += match rows - first {
                4.. => {
                    let starts = [start(0), start(1), start(2), start(3)];
                    bf16_widened::tile::<4, LANES>(starts, lines, depth, place, sums_stride, false);
                    4
                }
                2.. => {
                    bf16_widened::tile::<2, LANES>([start(0), start(1)], lines, depth, place, sums_stride, false);
                    2
                }
                _ => {
                    bf16_widened::tile::<1, LANES>([start(0)], lines, depth, place, sums_stride, false);
                    1
                }
            };
        }
    }
}

/// A stretch of `depth` numbers of rows, `NUMBERS` apart, by one panel's, both widened. Meanwhile it asks for as many of the `next` lines, which lie
/// in memory that the CPU does not foresee.
///
/// # Safety
/// As [`multiply`], of fp32; what `goes_on` has sums already.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn widened<const LANES: usize>(
    left: *const u32,
    rows: usize,
    (lines, next): (*const Line, *const Line),
    depth: usize,
    (sums, sums_stride): (*mut u32, usize),
    goes_on: bool,
) {
    let most = if LANES == 2 { 12 } else { 8 };
    let mut first = 0;
    while first < rows {
        ask_for_part::<1>(next, depth / 2 * LANES, first / most, rows.div_ceil(most));
        let (left, place) = (left.wrapping_add(first * NUMBERS), sums.wrapping_add(first * sums_stride));
        // SAFETY: the caller's promises.
        unsafe {
            first += match rows - first {
                // Twelve rows by two registers fill the registers, as do eight by three.
                12.. if LANES == 2 => tile::<12, LANES>(left, lines, depth, place, sums_stride, goes_on),
                8.. => tile::<8, LANES>(left, lines, depth, place, sums_stride, goes_on),
                4.. => tile::<4, LANES>(left, lines, depth, place, sums_stride, goes_on),
                2.. => tile::<2, LANES>(left, lines, depth, place, sums_stride, goes_on),
                _ => tile::<1, LANES>(left, lines, depth, place, sums_stride, goes_on),
            };
        }
    }
}

/// `ROWS` rows of them. Gives `ROWS`.
///
/// # Safety
/// As [`widened`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn tile<const ROWS: usize, const LANES: usize>(
    left: *const u32,
    lines: *const Line,
    depth: usize,
    sums: *mut u32,
    sums_stride: usize,
    goes_on: bool,
) -> usize {
    let starts = std::array::from_fn(|row| left.wrapping_add(row * NUMBERS));
    // SAFETY: the caller's promises.
    unsafe { fp32::tile::<ROWS, LANES>(starts, lines, depth, sums, sums_stride, goes_on) };
    ROWS
}

/// A row's words as numbers, zeros up to the next multiple of sixteen. Asks for its next stretch.
///
/// # Safety
/// The CPU has the features; the words are there; `place` has room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn widen_row(words: *const u32, count: usize, place: *mut u32) {
    for first in (0..count).step_by(8) {
        // SAFETY: the mask leaves out words that are not there; the caller's promise.
        unsafe {
            prefetch_far(words.wrapping_add(STRETCH + first));
            let eight = _mm256_maskz_loadu_epi32(vector::first(count - first) as u8, words.add(first).cast());
            let numbers = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(eight));
            _mm512_store_si512(place.add(2 * first).cast(), numbers);
        }
    }
}

/// A panel's words as numbers: those of each word's lines in the lower halves, then those in the upper ones.
///
/// # Safety
/// The CPU has the features; there are `LANES` lines for each word, which begin at cache lines, as does `place`, which has room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn widen_lines<const LANES: usize>(lines: *const Line, count: usize, place: *mut u32) {
    let place = place.cast::<Line>();
    for word in 0..count {
        for lane in 0..LANES {
            // SAFETY: the caller's promise.
            unsafe {
                let [low, high] = pairs(_mm512_load_si512(lines.add(word * LANES + lane).cast()));
                _mm512_store_si512(place.add(2 * word * LANES + lane).cast(), low);
                _mm512_store_si512(place.add((2 * word + 1) * LANES + lane).cast(), high);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    /// A pair's two numbers.
    fn numbers(word: u32) -> [f32; 2] {
        [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
    }

    fn check<const LANES: usize>() {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Exponents near that of 1, so that sums round.
            state.rotate_right(3) & 0x80ff_80ff | 0x3f00_3f00
        };
        for depth in [0, 1, 3, STRETCH, STRETCH + 1, 2 * STRETCH + 13] {
            for rows in [1, 2, 3, 5, 7, 11, 12, 13, 15, 24, 31] {
                for count in [1, 2] {
                    let stride = depth + 3;
                    let left: Vec<u32> = (0..rows * stride).map(|_| next()).collect();
                    let lines: Vec<Line> =
                        (0..count * depth * LANES).map(|_| Line(std::array::from_fn(|_| next()))).collect();
                    let width = 16 * LANES;
                    let mut sums = vec![f32::NAN.to_bits(); rows * count * width];
                    // SAFETY: the CPU has the instructions; everything is as long as it says.
                    unsafe {
                        let panels = (lines.as_ptr(), count);
                        let apart = (width, count * width);
                        multiply::<LANES>(left.as_ptr(), stride, rows, panels, depth, sums.as_mut_ptr(), apart);
                    }
                    for (at, sum) in sums.into_iter().enumerate() {
                        let (row, panel, column) = (at / (count * width), at / width % count, at % width);
                        let mut expected = 0.0_f32;
                        for word in 0..depth {
                            let line = &lines[(panel * depth + word) * LANES + column / 16];
                            let (a, b) = (numbers(left[row * stride + word]), numbers(line.0[column % 16]));
                            expected = a[1].mul_add(b[1], a[0].mul_add(b[0], expected));
                        }
                        assert_eq!(
                            f32::from_bits(sum),
                            expected,
                            "{rows} rows, {depth} words: {row}, {panel}, {column}"
                        );
                    }
                }
            }
        }
    }

    /// Widened before or in registers, in whatever tile: each sum is added up in the same order.
    #[test]
    fn sums_do_not_depend_on_how_many_rows_there_are() {
        if !Cpu::detect().avx512 {
            eprintln!("SKIPPED: no AVX-512");
            return;
        }
        check::<2>();
        check::<3>();
    }
}
