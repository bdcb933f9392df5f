//! Matrices as they lie as factors of products, each either way round: in training weights change at every step, and the inner dimension of a
//! weight's gradient, dYᵀ·X, is that of the rows.

use std::{cell::RefCell, mem::MaybeUninit};

use crate::{
    element::{Bf16, Element},
    gemm::{Left, Line, Panels, ResultElement, WIDTH, Words, room_for_lines, words_of_lines},
    packed::{as_words, bytes_of},
    parallel::{self, Destination},
    simd::multiversion,
    stored::{StoredWeight, pack},
    transpose::transpose_sixteen,
};

/// Words of the inner dimension that a task takes at once: lines of sixteen.
const WORDS_OF_A_TASK: usize = 64;
/// Registers of a panel's row.
const LANES: usize = WIDTH / 16;

/// An element, and how rows of them become words of the inner dimension.
pub(crate) trait Factor: ResultElement {
    /// What a word of them holds.
    const WORDS: Words;

    /// A word for each column: of one row, or of two rows' elements; the second row is taken for zero where it is not there. Where
    /// elements are no words as they lie, they are joined in `words`.
    fn join<'a>(first: &'a [Self], second: &[Self], words: &'a mut [u32]) -> &'a [u32];
}

impl Factor for f32 {
    const WORDS: Words = Words::F32;

    fn join<'a>(first: &'a [Self], _: &[Self], _: &'a mut [u32]) -> &'a [u32] {
        as_words(first)
    }
}

impl Factor for Bf16 {
    const WORDS: Words = Words::Bf16;

    fn join<'a>(first: &'a [Self], second: &[Self], words: &'a mut [u32]) -> &'a [u32] {
        match second {
            [] => join_rows(first, &vec![Self(0); first.len()], words),
            second => join_rows(first, second, words),
        }
        words
    }
}

multiversion! {
    fn join_rows(first: &[Bf16], second: &[Bf16], words: &mut [u32]) {
        for ((word, low), high) in words.iter_mut().zip(first).zip(second) {
            *word = u32::from(low.0) | u32::from(high.0) << 16;
        }
    }
}

/// Rows of `columns` elements, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, E> {
    pub values: &'a [E],
    pub columns: usize,
}

impl<E: Factor> Matrix<'_, E> {
    fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// Words of the inner dimension, which is that of the rows.
    fn depth(&self) -> usize {
        self.rows().div_ceil(E::WORDS.elements())
    }

    /// Word `word` of each column, where they lie or in `words`.
    fn words<'a>(&'a self, word: usize, words: &'a mut [u32]) -> &'a [u32] {
        let first = word * E::WORDS.elements();
        let row = |row: usize| if row < self.rows() { &self.values[row * self.columns..][..self.columns] } else { &[] };
        E::join(row(first), row(first + 1), words)
    }

    /// As a left factor.
    ///
    /// # Panics
    /// If the elements begin between two words.
    pub(crate) fn as_left(&self) -> Left<'_> {
        Left { words: as_words(self.values), rows: self.rows(), stride: self.columns / E::WORDS.elements() }
    }

    /// As a right factor whose columns are the rows of this.
    pub(crate) fn turned_panels(&self) -> OwnedPanels {
        let (columns, depth) = (self.rows(), self.columns / E::WORDS.elements());
        let stored = StoredWeight::new(E::KIND, bytes_of(self.values), columns, self.columns);
        // Elements of their kind fit their own number.
        let lines = stored.map(|stored| pack(stored, E::WORDS, E::KIND).lines).unwrap_or_default();
        OwnedPanels { kind: E::WORDS, lines, columns, depth }
    }

    /// As a right factor.
    pub(crate) fn panels(&self) -> OwnedPanels {
        let (columns, depth) = (self.columns, self.depth());
        let mut lines = room_for_lines(Panels::lines_of(columns, depth));
        let destination = Destination::new(lines.spare_capacity_mut().as_mut_ptr());
        parallel::for_each(depth.div_ceil(WORDS_OF_A_TASK), &|task| {
            with_scratch(columns, |scratch| {
                for word in task * WORDS_OF_A_TASK..depth.min((task + 1) * WORDS_OF_A_TASK) {
                    let (panels, rest) = self.words(word, scratch).as_chunks::<WIDTH>();
                    let mut last = [0; WIDTH];
                    last[..rest.len()].copy_from_slice(rest);
                    let last = (!rest.is_empty()).then_some(&last);
                    for (panel, words) in panels.iter().chain(last).enumerate() {
                        // SAFETY: each word of each panel is one task's own; `lines` outlives the tasks.
                        let lines = unsafe { destination.slice((panel * depth + word) * LANES, LANES) };
                        for (line, words) in lines.iter_mut().zip(words.as_chunks::<16>().0) {
                            line.write(Line(*words));
                        }
                    }
                }
            });
        });
        // SAFETY: there is room for all, and the tasks have written every line.
        unsafe { lines.set_len(Panels::lines_of(columns, depth)) };
        OwnedPanels { kind: E::WORDS, lines, columns, depth }
    }

    /// As a left factor: a row for each column. With the sum of each, where `sums` are asked for.
    pub(crate) fn transposed(&self, sums: bool) -> Transposed {
        let (columns, depth) = (self.columns, self.depth());
        // Rows that are a power of two apart would meet in a few sets of the caches.
        let apart = depth.div_ceil(16) + 1;
        let mut lines = room_for_lines(columns * apart);
        let tasks = depth.div_ceil(WORDS_OF_A_TASK);
        let mut partial = vec![0.0_f32; if sums { tasks * columns } else { 0 }];
        let destination = Destination::new(lines.spare_capacity_mut().as_mut_ptr());
        let partial_sums = Destination::new(partial.as_mut_ptr());
        parallel::for_each(tasks, &|task| {
            let first_word = task * WORDS_OF_A_TASK;
            with_scratch(17 * columns, |words| {
                let (row, words) = words.split_at_mut(columns);
                for block in (first_word..depth.min(first_word + WORDS_OF_A_TASK)).step_by(16) {
                    for (word, words) in words.chunks_exact_mut(columns).enumerate() {
                        match block + word {
                            word if word < depth => words.copy_from_slice(self.words(word, row)),
                            _ => words.fill(0),
                        }
                    }
                    // SAFETY: sixteen rows of words; line `block / 16` of every row is this task's own; `lines` outlives the tasks.
                    unsafe {
                        let place = destination.at(block / 16);
                        let done = transpose_sixteen(words.as_ptr(), columns, columns, place, apart);
                        for column in done..columns {
                            let line = std::array::from_fn(|word| words[word * columns + column]);
                            place.add(column * apart).write(MaybeUninit::new(Line(line)));
                        }
                    }
                }
            });
            if sums {
                // SAFETY: each task has sums of its own; `partial` outlives the tasks.
                let sums = unsafe { partial_sums.slice(task * columns, columns) };
                let per_task = WORDS_OF_A_TASK * E::WORDS.elements() * columns;
                let end = self.values.len().min((task + 1) * per_task);
                for row in self.values[task * per_task..end].chunks_exact(columns) {
                    add_row(sums, row);
                }
            }
        });
        // The lines between rows are zero.
        for column in 0..columns {
            lines.spare_capacity_mut()[(column + 1) * apart - 1].write(Line([0; 16]));
        }
        // SAFETY: there is room for all; every line is written.
        unsafe { lines.set_len(columns * apart) };
        let mut totals = vec![0.0; if sums { columns } else { 0 }];
        for partial in partial.chunks_exact(columns) {
            add_row(&mut totals, partial);
        }
        Transposed { lines, rows: columns, apart, sums: totals }
    }
}

multiversion! {
    pub(crate) fn add_row<E: Element>(sums: &mut [f32], row: &[E]) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.to_f32();
        }
    }
}

/// A right factor that owns its panels.
pub(crate) struct OwnedPanels {
    pub kind: Words,
    pub lines: Vec<Line>,
    pub columns: usize,
    pub depth: usize,
}

impl OwnedPanels {
    pub(crate) fn as_right(&self) -> Panels<'_> {
        Panels { kind: self.kind, lines: &self.lines, columns: self.columns, depth: self.depth }
    }
}

/// A left factor that owns its rows.
pub(crate) struct Transposed {
    lines: Vec<Line>,
    rows: usize,
    /// Lines from one row to the next.
    apart: usize,
    /// Each row's sum, or none.
    pub sums: Vec<f32>,
}

impl Transposed {
    pub(crate) fn as_left(&self) -> Left<'_> {
        Left { words: words_of_lines(&self.lines), rows: self.rows, stride: 16 * self.apart }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// With `count` words of old contents, that the thread keeps.
fn with_scratch(count: usize, work: impl FnOnce(&mut [u32])) {
    SCRATCH.with_borrow_mut(|words| {
        if words.len() < count {
            words.resize(count, 0);
        }
        work(&mut words[..count]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<E: Element>(count: usize) -> Vec<E> {
        // Small whole numbers, which both kinds hold.
        (0..count).map(|i| E::from_f32((i * 37 % 101) as f32 - 50.0)).collect()
    }

    /// The element of column `column` and row `row` in a word of it.
    fn element<E: Factor>(word: u32, row: usize) -> f32 {
        match E::WORDS {
            Words::F32 => f32::from_bits(word),
            _ => f32::from_bits(if row.is_multiple_of(2) { word << 16 } else { word & 0xffff_0000 }),
        }
    }

    fn check<E: Factor>(rows: usize, columns: usize) {
        let values = values::<E>(rows * columns);
        let matrix = Matrix { values: &values, columns };
        let (panels, transposed) = (matrix.panels(), matrix.transposed(true));
        let left = transposed.as_left();
        assert_eq!((left.rows, panels.columns), (columns, columns));
        let per_word = E::WORDS.elements();
        for column in 0..columns {
            for row in 0..panels.depth * per_word {
                let expected = if row < rows { values[row * columns + column].to_f32() } else { 0.0 };
                let line = (column / WIDTH * panels.depth + row / per_word) * LANES + column % WIDTH / 16;
                let found = element::<E>(panels.lines[line].0[column % 16], row);
                assert_eq!(found, expected, "panels: {rows} × {columns}, row {row}, column {column}");
                let found = element::<E>(left.words[column * left.stride + row / per_word], row);
                assert_eq!(found, expected, "transposed: {rows} × {columns}, row {row}, column {column}");
            }
            let sum: f32 = (0..rows).map(|row| values[row * columns + column].to_f32()).sum();
            assert_eq!(transposed.sums[column], sum);
        }
    }

    #[test]
    fn every_element_comes_to_its_place() {
        for rows in [1, 2, 15, 16, 33, 64, 131, 300] {
            for columns in [1, 8, 15, 47, 48, 50, 96] {
                check::<f32>(rows, columns);
                check::<Bf16>(rows, columns);
            }
        }
    }
}
