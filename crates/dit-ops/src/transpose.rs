//! Transposition of rows of words into a panel: word by word, the panel's columns beside each other.

use std::mem::MaybeUninit;

use crate::gemm::{Line, WIDTH};

/// Lines of a panel for each word of the inner dimension.
const LANES: usize = WIDTH / 16;

/// Rows of words, one for each column of a panel.
#[derive(Clone, Copy)]
pub(crate) struct Grid<'a> {
    /// From the first row's first word on.
    pub words: &'a [u32],
    /// Words from one row to the next.
    pub stride: usize,
    /// Rows, at most [`WIDTH`].
    pub columns: usize,
    /// Words of a row.
    pub depth: usize,
}

/// Writes `grid` to the first `depth` · [`LANES`] lines; columns past the last are zero.
///
/// # Panics
/// If the sizes do not fit each other.
pub(crate) fn transpose(grid: Grid<'_>, lines: &mut [MaybeUninit<Line>]) {
    let Grid { words, stride, columns, depth } = grid;
    assert!(columns > 0 && columns <= WIDTH && words.len() >= (columns - 1) * stride + depth);
    let lines = &mut lines[..depth * LANES];
    for lane in 0..LANES {
        let first = lane * 16;
        let rows = columns.saturating_sub(first).min(16);
        let mut done = 0;
        if rows == 16 {
            // SAFETY: the rows first..first + 16 have `depth` words each, as asserted; `lines` has `LANES` lines for each of them.
            unsafe {
                let (rows, lines) = (words.as_ptr().add(first * stride), lines.as_mut_ptr().add(lane));
                done = transpose_sixteen(rows, stride, depth, lines, LANES);
            }
        }
        for word in done..depth {
            let mut line = Line([0; 16]);
            for (column, value) in line.0.iter_mut().take(rows).enumerate() {
                *value = words[(first + column) * stride + word];
            }
            lines[word * LANES + lane].write(line);
        }
    }
}

/// As many of the first `depth` words of sixteen rows as registers take: each word's sixteen to one line, `apart` lines apart. Gives how
/// many words that were.
///
/// # Safety
/// `rows` is followed by 15 · `stride` + `depth` words, `lines` by (`depth` − 1) · `apart` + 1 lines.
pub(crate) unsafe fn transpose_sixteen(
    rows: *const u32,
    stride: usize,
    depth: usize,
    lines: *mut MaybeUninit<Line>,
    apart: usize,
) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the CPU has the instructions; else the caller's promise.
    unsafe {
        match crate::cpu::Cpu::detect() {
            cpu if cpu.avx512 => {
                let done = depth / 16 * 16;
                x86::transpose_avx512::<true>(rows, stride, done, lines, apart);
                return done;
            }
            cpu if cpu.avx2 => {
                let done = depth / 8 * 8;
                x86::transpose_avx2::<true>(rows, stride, done, lines, apart);
                return done;
            }
            _ => {}
        }
    }
    #[cfg(target_arch = "aarch64")]
    if crate::cpu::Cpu::detect().neon {
        let done = depth / 4 * 4;
        // SAFETY: the CPU has the instructions; else the caller's promise.
        unsafe { transpose_neon::<true>(rows, stride, done, lines, apart) };
        return done;
    }
    let _ = (rows, stride, depth, lines, apart);
    0
}

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::transpose_neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{transpose_avx2, transpose_avx512, transpose_four};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, mem::MaybeUninit};

    use crate::gemm::Line;

    /// The first `depth` words, a multiple of 16, of sixteen rows: each word's sixteen to one line, `apart` lines apart. They may be
    /// written past the caches, if these have no use for them: a line need not be read then before it is overwritten.
    ///
    /// # Safety
    /// The CPU has AVX-512. `rows` is followed by 15 · `stride` + `depth` words, `lines` by (`depth` − 1) · `apart` + 1 lines.
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn transpose_avx512<const PAST_CACHES: bool>(
        rows: *const u32,
        stride: usize,
        depth: usize,
        lines: *mut MaybeUninit<Line>,
        apart: usize,
    ) {
        for block in (0..depth).step_by(16) {
            // SAFETY: sixteen words of each row; the caller's promise.
            let row = |row: usize| unsafe { _mm512_loadu_si512(rows.add(row * stride + block).cast()) };
            // Four rows at a time: four words of each in every quarter, word 4q + j of the rows in quarter q of `four[j]`.
            let four = |first: usize| {
                let (a, b, c, d) = (row(first), row(first + 1), row(first + 2), row(first + 3));
                let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                [
                    _mm512_unpacklo_epi64(ab_low, cd_low),
                    _mm512_unpackhi_epi64(ab_low, cd_low),
                    _mm512_unpacklo_epi64(ab_high, cd_high),
                    _mm512_unpackhi_epi64(ab_high, cd_high),
                ]
            };
            let (a, b, c, d) = (four(0), four(4), four(8), four(12));
            for j in 0..4 {
                // Quarters 0 and 2, then 1 and 3, of either pair.
                let (ab_even, ab_odd) =
                    (_mm512_shuffle_i32x4::<0x88>(a[j], b[j]), _mm512_shuffle_i32x4::<0xdd>(a[j], b[j]));
                let (cd_even, cd_odd) =
                    (_mm512_shuffle_i32x4::<0x88>(c[j], d[j]), _mm512_shuffle_i32x4::<0xdd>(c[j], d[j]));
                let quarters = [
                    _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even),
                    _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd),
                    _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even),
                    _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd),
                ];
                for (quarter, line) in quarters.into_iter().enumerate() {
                    let word = block + 4 * quarter + j;
                    // SAFETY: the caller's promise; a `Line` is aligned to 64 bytes.
                    unsafe {
                        let place = lines.add(word * apart).cast();
                        if PAST_CACHES { _mm512_stream_si512(place, line) } else { _mm512_store_si512(place, line) }
                    }
                }
            }
        }
        if PAST_CACHES {
            // Others may read the lines once this thread says that it is done.
            _mm_sfence();
        }
    }

    /// The same with AVX2, a multiple of 8 words.
    ///
    /// # Safety
    /// As [`transpose_avx512`], but the CPU has AVX2.
    #[target_feature(enable = "avx2")]
    pub(crate) unsafe fn transpose_avx2<const PAST_CACHES: bool>(
        rows: *const u32,
        stride: usize,
        depth: usize,
        lines: *mut MaybeUninit<Line>,
        apart: usize,
    ) {
        for block in (0..depth).step_by(8) {
            // SAFETY: eight words of each row; the caller's promise.
            let row = |row: usize| unsafe { _mm256_loadu_si256(rows.add(row * stride + block).cast()) };
            let four = |first: usize| transpose_four([row(first), row(first + 1), row(first + 2), row(first + 3)]);
            let (a, b, c, d) = (four(0), four(4), four(8), four(12));
            for j in 0..4 {
                let halves = |a: __m256i, b: __m256i| {
                    [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
                };
                let (ab, cd) = (halves(a[j], b[j]), halves(c[j], d[j]));
                for (half, (ab, cd)) in ab.into_iter().zip(cd).enumerate() {
                    // SAFETY: the caller's promise; a `Line` is aligned to 64 bytes.
                    unsafe {
                        let line = lines.add((block + 4 * half + j) * apart).cast::<__m256i>();
                        if PAST_CACHES {
                            _mm256_stream_si256(line, ab);
                            _mm256_stream_si256(line.add(1), cd);
                        } else {
                            _mm256_store_si256(line, ab);
                            _mm256_store_si256(line.add(1), cd);
                        }
                    }
                }
            }
        }
        if PAST_CACHES {
            // As above.
            _mm_sfence();
        }
    }

    /// Eight words of four rows: word j of each in the lower half of register j, word 4 + j in the upper one.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn transpose_four([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab_low, cd_low),
            _mm256_unpackhi_epi64(ab_low, cd_low),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::{arch::aarch64::*, mem::MaybeUninit};

    use crate::{gemm::Line, neon::block::transpose_four};

    /// The first `depth` words, a multiple of 4, of sixteen rows: each word's sixteen to one line, `apart` lines apart. (Where they go past the
    /// caches on other CPUs, they do not here.)
    ///
    /// # Safety
    /// The CPU has NEON. `rows` is followed by 15 · `stride` + `depth` words, `lines` by (`depth` − 1) · `apart` + 1 lines.
    #[target_feature(enable = "neon")]
    pub(crate) unsafe fn transpose_neon<const PAST_CACHES: bool>(
        rows: *const u32,
        stride: usize,
        depth: usize,
        lines: *mut MaybeUninit<Line>,
        apart: usize,
    ) {
        for block in (0..depth).step_by(16) {
            for quarter in 0..4 {
                // A cache line of four rows before the next four's: sixteen rows that lie some powers of two apart do not stay in the caches.
                for first in (block..depth.min(block + 16)).step_by(4) {
                    // SAFETY: four words of each row; the caller's promise.
                    let row = |row: usize| unsafe { vld1q_u32(rows.add((4 * quarter + row) * stride + first)) };
                    for (j, words) in transpose_four([row(0), row(1), row(2), row(3)]).into_iter().enumerate() {
                        // SAFETY: the caller's promise.
                        unsafe { vst1q_u32(lines.add((first + j) * apart).cast::<u32>().add(4 * quarter), words) };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(columns: usize, depth: usize, stride: usize) {
        let words: Vec<u32> = (0..(columns - 1) * stride + depth).map(|i| i as u32 + 1).collect();
        let mut lines = vec![MaybeUninit::new(Line([u32::MAX; 16])); depth * LANES];
        transpose(Grid { words: &words, stride, columns, depth }, &mut lines);
        for (i, line) in lines.into_iter().enumerate() {
            // SAFETY: it was set above.
            let line = unsafe { line.assume_init() };
            let (word, lane) = (i / LANES, i % LANES);
            for (offset, found) in line.0.into_iter().enumerate() {
                let column = lane * 16 + offset;
                let expected = if column < columns { (column * stride + word) as u32 + 1 } else { 0 };
                assert_eq!(found, expected, "column {column}, word {word} of {columns}, {depth}, {stride}");
            }
        }
    }

    #[test]
    fn every_word_comes_to_its_place() {
        for columns in [1, 15, 16, 17, 31, 32, 47, 48] {
            for depth in [1, 15, 16, 17, 32, 50] {
                check(columns, depth, depth);
                check(columns, depth, depth + 3);
            }
        }
    }
}
