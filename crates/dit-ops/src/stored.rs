//! Weights as files and tensors have them, on their way into panels.
//!
//! Each value is read once: what a kernel wants of it, whether it is a number, and its place among its panel's columns are found
//! while it is in the cache.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicUsize, Ordering},
};

use tch::Kind;

use crate::{
    cpu::Cpu,
    element::{Bf16, Element},
    gemm::{Line, Panels, WIDTH, Words, room_for_lines},
    parallel::{self, Destination},
    quantize::quantize_column,
    simd::multiversion,
    transpose::{Grid, transpose},
};

/// Words of each of a panel's rows that are transposed at once: with their panel they stay in the second-level cache.
const WORDS_AT_ONCE: usize = 1024;

/// A Linear's weights, (outputs, inputs) row by row, where they are stored: in a mapped checkpoint, say.
#[derive(Clone, Copy, Debug)]
pub struct StoredWeight<'a> {
    values: Values<'a>,
    outputs: usize,
    inputs: usize,
}

/// The elements, as the bits that are stored.
#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    F32(&'a [u32]),
    Bf16(&'a [u16]),
}

impl<'a> StoredWeight<'a> {
    /// Weights whose elements, fp32 or bf16, lie in `bytes` in this machine's byte order. `None` for another kind, for another
    /// number of bytes than (outputs, inputs) needs, and where `bytes` does not begin at a multiple of the element's size.
    pub fn new(kind: Kind, bytes: &'a [u8], outputs: usize, inputs: usize) -> Option<Self> {
        let count = outputs.checked_mul(inputs)?;
        // SAFETY: any bits are a u32 or a u16.
        let values = unsafe {
            match kind {
                Kind::Float => Values::F32(whole(bytes.align_to(), count)?),
                Kind::BFloat16 => Values::Bf16(whole(bytes.align_to(), count)?),
                _ => return None,
            }
        };
        Some(Self { values, outputs, inputs })
    }

    /// Outputs, then inputs.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }
}

/// The middle of [`slice::align_to`] if there is nothing else and it has `count` elements.
fn whole<'a, T>((before, values, after): (&'a [u8], &'a [T], &'a [u8]), count: usize) -> Option<&'a [T]> {
    (before.is_empty() && after.is_empty() && values.len() == count).then_some(values)
}

/// Weights in panels.
pub(crate) struct Packed {
    pub lines: Vec<Line>,
    /// int8 only: each output's step, and its sum of codes.
    pub steps: Vec<f32>,
    pub sums: Vec<i32>,
    /// How many of the stored values are NaN or infinite. (What they became is unspecified.)
    pub non_finite: usize,
}

/// Packs `weight`, rounded to `kind` (fp32 or bf16) first; `words` says what a word of the result holds, and divides its inputs.
pub(crate) fn pack(weight: StoredWeight<'_>, words: Words, kind: Kind) -> Packed {
    let depth = weight.inputs / words.elements();
    let panel_lines = depth * (WIDTH / 16);
    let count = Panels::lines_of(weight.outputs, depth);
    let mut lines = room_for_lines(count);
    let quantized = if words == Words::Int8 { weight.outputs } else { 0 };
    let (mut steps, mut sums) = (vec![0.0_f32; quantized], vec![0_i32; quantized]);
    let non_finite = AtomicUsize::new(0);
    let destination = Destination::new(lines.spare_capacity_mut().as_mut_ptr());
    let (steps_of, sums_of) = (Destination::new(steps.as_mut_ptr()), Destination::new(sums.as_mut_ptr()));
    parallel::for_each(weight.outputs.div_ceil(WIDTH), &|panel| {
        // SAFETY: each task has a panel of its own, and `lines` outlives the tasks.
        let lines = unsafe { destination.slice(panel * panel_lines, panel_lines) };
        let first = panel * WIDTH;
        let columns = WIDTH.min(weight.outputs - first);
        let rows = Rows { weight, first, columns, kind };
        let bad = match words {
            Words::Int8 => {
                // SAFETY: a panel's columns are its task's own; both vectors outlive the tasks.
                let (steps, sums) = unsafe { (steps_of.slice(first, columns), sums_of.slice(first, columns)) };
                rows.quantize(steps, sums, lines)
            }
            Words::Bf16 => rows.pack_bf16(lines),
            Words::F32 => rows.pack_f32(lines),
        };
        if bad > 0 {
            non_finite.fetch_add(bad, Ordering::Relaxed);
        }
    });
    // SAFETY: there is room for `count`, and the tasks have written every line of every panel.
    unsafe { lines.set_len(count) };
    Packed { lines, steps, sums, non_finite: non_finite.into_inner() }
}

thread_local! {
    /// Words of a panel's rows, and a row's values.
    static SCRATCH: RefCell<(Vec<u32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The weights of one panel's columns.
struct Rows<'a> {
    weight: StoredWeight<'a>,
    first: usize,
    columns: usize,
    /// What values are rounded to.
    kind: Kind,
}

/// A line of a panel that is still to be written.
type Unset = std::mem::MaybeUninit<Line>;

impl Rows<'_> {
    /// fp32 words. Returns how many values are not finite.
    fn pack_f32(&self, lines: &mut [Unset]) -> usize {
        let inputs = self.weight.inputs;
        match self.weight.values {
            Values::F32(values) => {
                let values = &values[self.first * inputs..][..self.columns * inputs];
                let mut bad = 0;
                for start in (0..inputs).step_by(WORDS_AT_ONCE) {
                    let depth = WORDS_AT_ONCE.min(inputs - start);
                    for row in values.chunks_exact(inputs) {
                        bad += non_finite(&row[start..][..depth]);
                    }
                    let grid = Grid { words: &values[start..], stride: inputs, columns: self.columns, depth };
                    transpose(grid, &mut lines[start * (WIDTH / 16)..]);
                }
                bad
            }
            Values::Bf16(values) => self.through_scratch(lines, inputs, |row, start, words| {
                let row = &values[row * inputs + start..][..words.len()];
                widen(row, words);
                non_finite(words)
            }),
        }
    }

    /// Pairs of bf16. Returns how many values are not finite.
    fn pack_bf16(&self, lines: &mut [Unset]) -> usize {
        let inputs = self.weight.inputs;
        match self.weight.values {
            Values::F32(values) => self.through_scratch(lines, inputs / 2, |row, start, words| {
                let row = &values[row * inputs + 2 * start..][..2 * words.len()];
                round_pairs(row.as_chunks().0, words);
                non_finite(row)
            }),
            Values::Bf16(values) => self.through_scratch(lines, inputs / 2, |row, start, words| {
                let row = &values[row * inputs + 2 * start..][..2 * words.len()];
                join_pairs(row.as_chunks().0, words);
                non_finite_bf16(row)
            }),
        }
    }

    /// Has `fill` write each row's words, a stretch beginning at a word of it, and transposes them into the panel. Returns the sum of its results.
    fn through_scratch(
        &self,
        lines: &mut [Unset],
        depth: usize,
        fill: impl Fn(usize, usize, &mut [u32]) -> usize,
    ) -> usize {
        SCRATCH.with_borrow_mut(|(words, _)| {
            let mut sum = 0;
            for start in (0..depth).step_by(WORDS_AT_ONCE) {
                let stretch = WORDS_AT_ONCE.min(depth - start);
                words.resize(WIDTH * WORDS_AT_ONCE, 0);
                for (column, words) in words.chunks_exact_mut(stretch).take(self.columns).enumerate() {
                    sum += fill(self.first + column, start, words);
                }
                let grid = Grid { words, stride: stretch, columns: self.columns, depth: stretch };
                transpose(grid, &mut lines[start * (WIDTH / 16)..]);
            }
            sum
        })
    }

    /// Quadruples of int8. Returns how many values are not finite.
    fn quantize(&self, steps: &mut [f32], sums: &mut [i32], lines: &mut [Unset]) -> usize {
        let inputs = self.weight.inputs;
        let (depth, twos) = (inputs / 4, Words::twos_saturate(Cpu::detect()));
        SCRATCH.with_borrow_mut(|(words, row)| {
            words.resize((self.columns * depth).max(words.len()), 0);
            row.resize(inputs.max(row.len()), 0.0);
            let row = &mut row[..inputs];
            let mut bad = 0;
            let columns = words.chunks_exact_mut(depth).zip(steps.iter_mut().zip(sums));
            for (column, (words, (step, sum))) in columns.enumerate() {
                let start = (self.first + column) * inputs;
                match self.weight.values {
                    Values::F32(values) => {
                        let values = &values[start..][..inputs];
                        bad += non_finite(values);
                        read_f32(values, self.kind == Kind::BFloat16, row);
                    }
                    Values::Bf16(values) => {
                        let values = &values[start..][..inputs];
                        bad += non_finite_bf16(values);
                        read_bf16(values, row);
                    }
                }
                (*step, *sum) = quantize_column(row, words, twos);
            }
            transpose(Grid { words, stride: depth, columns: self.columns, depth }, lines);
            bad
        })
    }
}

/// How many fp32 numbers are NaN or infinite.
fn non_finite(values: &[u32]) -> usize {
    const INFINITY: u32 = 0x7f80_0000;
    if greatest(values) < INFINITY {
        return 0;
    }
    values.iter().filter(|&&bits| bits & 0x7fff_ffff >= INFINITY).count()
}

/// How many bf16 numbers are NaN or infinite.
fn non_finite_bf16(values: &[u16]) -> usize {
    const INFINITY: u16 = 0x7f80;
    if greatest_bf16(values) < INFINITY {
        return 0;
    }
    values.iter().filter(|&&bits| bits & 0x7fff >= INFINITY).count()
}

multiversion! {
    /// The greatest magnitude, as bits.
    fn greatest(values: &[u32]) -> u32 {
        values.iter().fold(0, |greatest, &bits| greatest.max(bits & 0x7fff_ffff))
    }
}

multiversion! {
    fn greatest_bf16(values: &[u16]) -> u16 {
        values.iter().fold(0, |greatest, &bits| greatest.max(bits & 0x7fff))
    }
}

multiversion! {
    /// Pairs of fp32 to words of bf16.
    fn round_pairs(pairs: &[[u32; 2]], words: &mut [u32]) {
        for (word, pair) in words.iter_mut().zip(pairs) {
            let [low, high] = pair.map(|bits| u32::from(Bf16::from_f32(f32::from_bits(bits)).0));
            *word = low | high << 16;
        }
    }
}

multiversion! {
    fn join_pairs(pairs: &[[u16; 2]], words: &mut [u32]) {
        for (word, [low, high]) in words.iter_mut().zip(pairs) {
            *word = u32::from(*low) | u32::from(*high) << 16;
        }
    }
}

multiversion! {
    /// bf16 to fp32.
    fn widen(values: &[u16], words: &mut [u32]) {
        for (word, &bits) in words.iter_mut().zip(values) {
            *word = u32::from(bits) << 16;
        }
    }
}

multiversion! {
    /// fp32 numbers, rounded to bf16 or not.
    fn read_f32(values: &[u32], to_bf16: bool, row: &mut [f32]) {
        for (value, &bits) in row.iter_mut().zip(values) {
            let exact = f32::from_bits(bits);
            *value = if to_bf16 { Bf16::from_f32(exact).to_f32() } else { exact };
        }
    }
}

fn read_bf16(values: &[u16], row: &mut [f32]) {
    for (value, &bits) in row.iter_mut().zip(values) {
        *value = Bf16(bits).to_f32();
    }
}
