//! Matrix products with a packed right factor, in inference the weights, and what is done to each result while it is in a register's reach.
//!
//! One layout serves fp32, bf16 and int8: everything is seen as 32-bit words along the inner dimension, a word being one fp32
//! number, a pair of bf16 or four int8. AVX-512 has for each an instruction that multiplies sixteen words by a broadcast word and
//! adds the products to sixteen accumulators. The left factor is read as it lies, row by row; the right one is packed into
//! panels of [`WIDTH`] columns, word by word, the panel's columns beside each other: weights that stay once, all else when it comes
//! ([`factors`](crate::factors)).
//!
//! A tile is 8 rows × 48 columns: 24 accumulators, 3 registers of weights, and one broadcast activation, of 32 registers. Two
//! panels, or one, stay in the second-level cache while all rows pass. AMX multiplies 32 rows by the same 48 columns of the same panels,
//! AVX2 and NEON 6 rows by 16 of the columns at a time, once both are copied to where their few registers reach them; AVX2 few rows where they lie.
//! AVX-512 without fast products of bf16 widens both when it copies them.

use std::mem::MaybeUninit;

use crate::{
    cpu::Cpu,
    element::{Bf16, Element},
    memory::ask_for_huge_pages,
    parallel::{self, Destination},
};

/// Columns of a panel.
pub(crate) const WIDTH: usize = 48;
/// Rows of a tile with AVX-512.
const AVX512_ROWS: usize = 8;
/// Most panels that such rows pass together: their results, where rows are whole cache lines, are so too, also in bf16, and no other thread
/// writes half of one.
const AVX512_PANELS_AT_ONCE: usize = 2;
/// Lines of panels that pass together, where they are several: half of a second-level cache.
const AVX512_LINES_AT_ONCE: usize = 8192;
/// Rows that pass the panels of a task before the next ones' turn: their activations should stay in the last-level cache.
const ROWS_AT_ONCE: usize = 512;
/// With AMX, whose products take less time than reading that far away does, bytes of such rows: half of a second-level cache.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Rows that rows come in multiples of with AVX2 and NEON: a multiple of their tiles'.
const COPIED_ROWS: usize = 12;
/// The same where AVX-512 widens bf16.
const WIDENED_ROWS: usize = 24;
/// Fewest rows of a task that are worth copying with AVX2, with the weights that they are multiplied by. Either way gives the same bits: how many
/// rows a task has depends on the threads.
#[cfg(target_arch = "x86_64")]
const AVX2_FEWEST_COPIED: usize = 12;
/// Rows that are copied, and whose sums are held, at once: 192 and 144 kB of a second-level cache, where AVX-512 widens bf16 96 and 288 kB.
const COPIED_ROWS_AT_ONCE: usize = 192;
/// Rows of a task, if there are as many: they share the copies of the panels.
const COPIED_ROWS_AT_LEAST: usize = 48;
/// Panels that such rows pass together, so that they need not be copied anew for each.
const COPIED_PANELS_AT_ONCE: usize = 4;
/// The same where AVX-512 widens bf16: Intel's CPUs have 1 to 2 MB of second-level cache.
const WIDENED_PANELS_AT_ONCE: usize = 8;
/// Rows of a tile with AMX.
const AMX_ROWS: usize = 32;
/// Rows up to which AVX-512 keeps up with the weights' way through memory; with more, AMX does what it can.
const FEW_ROWS: usize = 4;

/// What a word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    F32,
    Bf16,
    /// Activations are unsigned, weights signed.
    Int8,
}

impl Words {
    /// Elements of the inner dimension in a word.
    pub(crate) fn elements(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Whether this CPU has the instructions of one of this crate's kernels.
    pub(crate) fn supported(self, cpu: Cpu) -> bool {
        match self {
            Self::F32 => cpu.avx512 || cpu.avx2 || cpu.neon,
            Self::Bf16 => cpu.avx512 || cpu.avx2 || cpu.neon,
            Self::Int8 => cpu.avx512_vnni || cpu.avx2 || cpu.neon_i8mm || cpu.neon_dotprod,
        }
    }

    /// Whether int8 products are added by twos in 16 bits first, as AVX2 does it, whose multiplication of bytes has no wider sums. For these to
    /// be exact, the magnitudes of two weights that belong to one of a word's halves must not add up to more than 128: 255 · 128 < 2¹⁵.
    pub(crate) fn twos_saturate(cpu: Cpu) -> bool {
        !(Self::Int8.in_avx512(cpu) || cpu.neon)
    }

    /// Whether AVX-512 multiplies such words as they are, and fast.
    pub(crate) fn in_avx512(self, cpu: Cpu) -> bool {
        match self {
            Self::F32 => cpu.avx512,
            Self::Bf16 => cpu.avx512_bf16_products,
            Self::Int8 => cpu.avx512_vnni,
        }
    }
}

/// One cache line of words.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [u32; 16]);

/// Lines as the words that they are.
pub(crate) fn words_of_lines(lines: &[Line]) -> &[u32] {
    // SAFETY: a line is sixteen words.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), 16 * lines.len()) }
}

/// Room for `count` lines, in large pages where the system has them.
pub(crate) fn room_for_lines(count: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(count);
    ask_for_huge_pages(lines.as_mut_ptr().cast(), count * size_of::<Line>());
    lines
}

/// The left factor: `rows` rows of `words` words.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub words: &'a [u32],
    pub rows: usize,
    /// Words from one row to the next.
    pub stride: usize,
}

/// The right factor, in panels of [`WIDTH`] columns.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub kind: Words,
    pub lines: &'a [Line],
    pub columns: usize,
    /// Words of the inner dimension.
    pub depth: usize,
}

impl Panels<'_> {
    pub(crate) fn lines_of(columns: usize, depth: usize) -> usize {
        columns.div_ceil(WIDTH) * depth * (WIDTH / 16)
    }
}

/// One value for each column, continued with zeros to the last panel's end: the kernels read whole panels.
pub(crate) fn to_whole_panels<T: Copy + Default>(mut values: Vec<T>) -> Vec<T> {
    values.resize(values.len().next_multiple_of(WIDTH), T::default());
    values
}

/// What is applied to a sum once the bias is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    GeluTanh,
}

/// How int8 sums become real numbers: Σ (a − zero)·s_row · w·s_column.
#[derive(Clone, Copy)]
pub(crate) struct Dequantize<'a> {
    /// Each row's step and zero point.
    pub rows: &'a [RowScale],
    /// Each column's step, [to whole panels](to_whole_panels).
    pub columns: &'a [f32],
    /// Each column's sum of weights, likewise.
    pub sums: &'a [i32],
}

/// The code of one token's activations: value = (code − zero)·step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowScale {
    pub step: f32,
    pub zero: i32,
}

/// From sums to results.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub dequantize: Option<Dequantize<'a>>,
    /// One for each column, [to whole panels](to_whole_panels), or none.
    pub bias: &'a [f32],
    pub activation: Activation,
    /// Where results go as they are before the activation, too; not with int8.
    pub before: Option<Output>,
    /// Whether results are more than the caches hold until they are read: lines are not fetched then only to be overwritten.
    pub past_caches: bool,
}

impl Epilogue<'_> {
    /// The sums themselves.
    pub(crate) fn plain() -> Self {
        Self { dequantize: None, bias: &[], activation: Activation::Identity, before: None, past_caches: false }
    }
}

/// Where results go: rows of `columns` elements.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    F32(Destination<MaybeUninit<f32>>),
    Bf16(Destination<MaybeUninit<Bf16>>),
}

/// An element that results can be of.
pub(crate) trait ResultElement: Element {
    fn output(place: Destination<MaybeUninit<Self>>) -> Output;
}

impl ResultElement for f32 {
    fn output(place: Destination<MaybeUninit<Self>>) -> Output {
        Output::F32(place)
    }
}

impl ResultElement for Bf16 {
    fn output(place: Destination<MaybeUninit<Self>>) -> Output {
        Output::Bf16(place)
    }
}

/// `output` = epilogue(`left` · `right`), on all threads.
///
/// # Panics
/// If the sizes do not fit each other, or the CPU lacks the instructions.
pub(crate) fn multiply(left: Left<'_>, right: Panels<'_>, epilogue: Epilogue<'_>, output: Output) {
    let Left { words, rows, stride } = left;
    assert!(right.kind.supported(Cpu::detect()), "no kernel for {:?} on this CPU", right.kind);
    assert!(rows == 0 || (stride >= right.depth && words.len() >= (rows - 1) * stride + right.depth));
    assert_eq!(right.lines.len(), Panels::lines_of(right.columns, right.depth));
    let whole = right.columns.next_multiple_of(WIDTH);
    assert!(epilogue.bias.is_empty() || epilogue.bias.len() == whole);
    assert_eq!(epilogue.dequantize.is_some(), right.kind == Words::Int8);
    assert!(epilogue.dequantize.is_none() || epilogue.before.is_none());
    if let Some(dequantize) = epilogue.dequantize {
        assert!(dequantize.rows.len() == rows);
        assert!(dequantize.columns.len() == whole && dequantize.sums.len() == whole);
    }

    let panels = right.columns.div_ceil(WIDTH);
    let kernel = Kernel::of(right.kind, rows, Cpu::detect());
    let together = kernel.panels_at_once(rows, panels, right.depth);
    let groups = panels.div_ceil(together);
    let chunk = rows_of_a_task(kernel, rows, groups, right.depth);
    parallel::for_each(rows.div_ceil(chunk) * groups, &|task| {
        let (part, group) = (task / groups, task % groups);
        let (first, panel) = (part * chunk, group * together);
        let place = Place { panel, panels: together.min(panels - panel), first, end: rows.min(first + chunk) };
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        // SAFETY: the CPU has the instructions and the sizes fit, as asserted above; tasks are different panels or rows, so each
        // writes to results of its own.
        unsafe {
            panels::multiply(kernel, left, right, epilogue, output, place);
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = (place, output);
    });
}

/// Which inner loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Avx2(Words),
    Neon(Words),
    Avx512(Words),
    /// bf16, widened.
    Avx512Widened,
    AmxBf16,
    AmxInt8,
}

impl Kernel {
    /// The fastest of those that a CPU has that [supports](Words::supported) such words.
    fn of(words: Words, rows: usize, cpu: Cpu) -> Self {
        let amx = cpu.amx && rows > FEW_ROWS;
        match words {
            Words::Bf16 if amx => Self::AmxBf16,
            Words::Int8 if amx => Self::AmxInt8,
            words if words.in_avx512(cpu) => Self::Avx512(words),
            Words::Bf16 if cpu.avx512 => Self::Avx512Widened,
            words if cpu.neon => Self::Neon(words),
            words => Self::Avx2(words),
        }
    }

    /// Rows of a tile, or what they are multiples of.
    fn rows(self) -> usize {
        match self {
            Self::Avx2(_) | Self::Neon(_) => COPIED_ROWS,
            Self::Avx512Widened => WIDENED_ROWS,
            Self::Avx512(_) => AVX512_ROWS,
            Self::AmxBf16 | Self::AmxInt8 => AMX_ROWS,
        }
    }

    /// Most panels of a task, for so many rows, panels, and words of the inner dimension.
    fn panels_at_once(self, rows: usize, panels: usize, depth: usize) -> usize {
        match self {
            // Where there are many threads, rather fewer panels at a time than rows, by which their copies are shared.
            Self::Avx2(_) | Self::Neon(_) | Self::Avx512Widened => {
                let most = if self == Self::Avx512Widened { WIDENED_PANELS_AT_ONCE } else { COPIED_PANELS_AT_ONCE };
                let tasks = |together| panels.div_ceil(together) * rows.div_ceil(COPIED_ROWS_AT_LEAST);
                (1..=most).rev().find(|&together| tasks(together) >= 2 * parallel::threads()).unwrap_or(1)
            }
            // Where there are few tiles, every thread is to have some.
            Self::Avx512(_)
                if panels / AVX512_PANELS_AT_ONCE * rows.div_ceil(AVX512_ROWS) >= 4 * parallel::threads() =>
            {
                (AVX512_LINES_AT_ONCE / (WIDTH / 16) / depth.max(1)).clamp(1, AVX512_PANELS_AT_ONCE)
            }
            Self::Avx512(_) | Self::AmxBf16 | Self::AmxInt8 => 1,
        }
    }

    /// Most rows, of so many words, that pass a task's panels at once: a multiple of [`rows`](Self::rows).
    fn rows_at_once(self, depth: usize) -> usize {
        match self {
            Self::Avx2(_) | Self::Neon(_) | Self::Avx512Widened => COPIED_ROWS_AT_ONCE,
            Self::Avx512(_) => ROWS_AT_ONCE.next_multiple_of(self.rows()),
            Self::AmxBf16 | Self::AmxInt8 => {
                (BYTES_AT_ONCE / (4 * depth)).next_multiple_of(AMX_ROWS).clamp(AMX_ROWS, ROWS_AT_ONCE)
            }
        }
    }
}

/// Small enough that every thread has a few tasks.
fn rows_of_a_task(kernel: Kernel, rows: usize, groups: usize, depth: usize) -> usize {
    let parts = (4 * parallel::threads()).div_ceil(groups);
    let fewest = match kernel {
        Kernel::Avx2(_) | Kernel::Neon(_) | Kernel::Avx512Widened => COPIED_ROWS_AT_LEAST,
        Kernel::Avx512(_) | Kernel::AmxBf16 | Kernel::AmxInt8 => kernel.rows(),
    };
    rows.div_ceil(parts).next_multiple_of(kernel.rows()).clamp(fewest, kernel.rows_at_once(depth))
}

/// One task: these rows through those panels.
#[derive(Clone, Copy)]
struct Place {
    panel: usize,
    panels: usize,
    first: usize,
    end: usize,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod epilogue;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod panels;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a CPU has, the kernel that is chosen is one that it has.
    #[test]
    fn a_supported_kernel_has_its_instructions() {
        for bits in 0..128_u32 {
            let has = |bit: u32| bits >> bit & 1 == 1;
            // No CPU has both.
            let (neon, x86) = (has(6), !has(6));
            let avx512 = x86 && has(1);
            let cpu = Cpu {
                avx2: x86 && has(0),
                avx512,
                avx512_bf16: avx512 && has(2),
                avx512_bf16_products: avx512 && has(2) && !has(5),
                avx512_vnni: avx512 && has(3),
                amx: avx512 && has(2) && has(4),
                neon,
                neon_bf16: neon && has(0),
                neon_i8mm: neon && has(1),
                neon_dotprod: neon && has(2),
                bf16: has(5),
            };
            for words in [Words::F32, Words::Bf16, Words::Int8] {
                for rows in [1, FEW_ROWS, FEW_ROWS + 1, 1000] {
                    let there = match Kernel::of(words, rows, cpu) {
                        Kernel::Avx2(_) => cpu.avx2,
                        Kernel::Neon(Words::Int8) => cpu.neon_i8mm || cpu.neon_dotprod,
                        Kernel::Neon(_) => cpu.neon,
                        Kernel::Avx512(Words::F32) => cpu.avx512,
                        Kernel::Avx512(Words::Bf16) => cpu.avx512_bf16,
                        Kernel::Avx512Widened => cpu.avx512,
                        Kernel::Avx512(Words::Int8) => cpu.avx512_vnni,
                        Kernel::AmxBf16 | Kernel::AmxInt8 => cpu.amx,
                    };
                    assert!(there || !words.supported(cpu), "{words:?}, {rows} rows, {cpu:?}");
                }
            }
        }
    }
}
