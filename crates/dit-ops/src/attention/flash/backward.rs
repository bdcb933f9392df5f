use std::{cell::RefCell, ops::Range};

use tch::Tensor;

use super::*;
use crate::{
    aligned::Aligned,
    element::{allocate, values},
    parallel::{self, Destination},
};

/// What the backward pass is given.
pub(crate) struct Given<'a> {
    pub shape: Shape,
    /// (N, T, 3·H·head).
    pub qkv: &'a Tensor,
    /// (N, T, H·head), and its gradient.
    pub output: &'a Tensor,
    pub gradient: &'a Tensor,
    pub kept: &'a Kept,
}

/// The gradient of `qkv`: with weights P = softmax(S), S = scale·Q·Kᵀ, and results O = P·V,
///
/// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P ∘ (dP − δ), δ the sum of dO ∘ O in each row, dQ = scale·dS·K, dK = scale·dSᵀ·Q
///
/// (Dao et al. 2022, "FlashAttention", appendix B). δ is of results as they were before they were rounded: else the rows of dS would sum to
/// the rounding error instead of 0.
///
/// # Panics
/// If a tensor is not contiguous, of the kind and of the shape.
pub(crate) fn pull_back<R: Registers>(registers: R, given: &Given<'_>) -> Tensor {
    let shape = given.shape;
    let Shape { samples, tokens, heads, head: width } = shape;
    let (result, start) = allocate::<R::Element>(&[samples as i64, tokens as i64, (3 * heads * width) as i64]);
    let destination = Destination::new(start);
    let [qkv, output, gradient] = [given.qkv, given.output, given.gradient].map(values::<R::Element>);
    let Kept { weightings, remainders } = given.kept;
    let remainders = remainders.as_ref().map(values::<R::Element>);
    parallel::for_each(samples * heads, &|task| {
        let head = Head::at(shape, task);
        let weightings = &weightings[task * tokens..][..tokens];
        let own = OneHead { registers, qkv, output, remainders, gradient, weightings, head };
        // SAFETY: each task has a head of its own; the tensor outlives them.
        let put = |part: usize, token: usize, values: &[f32]| unsafe {
            write(values, 1.0, destination.slice(head.start(3, part, token), values.len()));
        };
        SCRATCH.with_borrow_mut(|scratch| own.pull_back(scratch, &put));
    });
    result
}

/// What a thread keeps from one head to the next.
#[derive(Default)]
struct Scratch {
    keys: OfKeys,
    queries: OfQueries,
    /// A tile's scores, and the gradients of its weights.
    scores: Aligned<u32>,
    of_weights: Aligned<u32>,
    /// By a lane of keys: weights and gradients of scores, tile by tile.
    weights: Aligned<u32>,
    of_scores: Aligned<u32>,
    of_scores_by_rows: Aligned<u32>,
    /// Rows that have been gathered.
    gathered: Aligned<u32>,
    /// Gradients' rows.
    rows: Aligned<f32>,
}

/// A head's keys and values, a piece for each lane of them.
#[derive(Default)]
struct OfKeys {
    /// As columns.
    turned_keys: Aligned<u32>,
    turned_values: Aligned<u32>,
    /// Keys, split by lanes.
    keys: Aligned<u32>,
    /// Gradients, a line for each value.
    of_keys: Aligned<u32>,
    of_values: Aligned<u32>,
}

/// The queries that pass together.
#[derive(Default)]
struct OfQueries {
    /// A tile's queries side by side, and gradients of their results.
    queries: Aligned<u32>,
    of_outputs: Aligned<u32>,
    /// The same, split by tiles.
    queries_by_tiles: Aligned<u32>,
    of_outputs_by_tiles: Aligned<u32>,
    /// The sums δ.
    deltas: Vec<f32>,
    weightings: Vec<Weighting>,
    /// Gradients, row by row.
    of_queries: Aligned<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

struct OneHead<'a, R: Registers> {
    registers: R,
    qkv: &'a [R::Element],
    output: &'a [R::Element],
    remainders: Option<&'a [R::Element]>,
    gradient: &'a [R::Element],
    /// Of this head's queries.
    weightings: &'a [Weighting],
    head: Head,
}

impl<R: Registers> OneHead<'_, R> {
    fn layout(&self) -> Layout<R> {
        Layout::of(self.head.shape.head)
    }

    /// Queries (0), keys (1) or values (2).
    fn part(&self, part: usize) -> Part<'_, R::Element> {
        Part { all: self.qkv, parts: 3, part, head: self.head }
    }

    /// `put` is given the gradients of each part of each token.
    fn pull_back(&self, scratch: &mut Scratch, put: &dyn Fn(usize, usize, &[f32])) {
        let (layout, tokens) = (self.layout(), self.head.shape.tokens);
        let lanes = tokens.div_ceil(R::COLUMNS);
        self.lay_keys(scratch);
        for first in (0..tokens).step_by(R::QUERIES) {
            let own = first..tokens.min(first + R::QUERIES);
            self.lay_queries(own.clone(), scratch);
            for lane in 0..lanes {
                self.make_scores(own.len(), lane, scratch);
                self.pull_back_scores(own.clone(), lane, scratch);
            }
            let rows = scratch.queries.of_queries.at_least(own.len() * layout.row());
            for (sums, query) in rows.chunks_exact(layout.row()).zip(own) {
                let row = scratch.rows.at_least(layout.head);
                for (value, &bits) in row.iter_mut().zip(sums) {
                    *value = f32::from_bits(bits);
                }
                put(0, query, row);
            }
        }
        let OfKeys { of_keys, of_values, .. } = &mut scratch.keys;
        for (part, gradients) in [(1, of_keys), (2, of_values)] {
            let gradients = gradients.at_least(lanes * layout.turned());
            let rows = scratch.rows.at_least(R::COLUMNS * layout.row());
            for (lane, gradients) in gradients.chunks_exact(layout.turned()).enumerate() {
                self.registers.turn_back(layout, gradients, rows);
                let keys = lane * R::COLUMNS..tokens.min((lane + 1) * R::COLUMNS);
                for (key, values) in keys.zip(rows.chunks_exact(layout.row())) {
                    put(part, key, &values[..layout.head]);
                }
            }
        }
    }

    fn lay_keys(&self, scratch: &mut Scratch) {
        let (layout, tokens, registers) = (self.layout(), self.head.shape.tokens, self.registers);
        let (lane, lanes) = (layout.lane(), tokens.div_ceil(R::COLUMNS));
        let gathered = scratch.gathered.at_least(layout.gathered(R::COLUMNS));
        let OfKeys { turned_keys, turned_values, keys, .. } = &mut scratch.keys;
        let turned_keys = turned_keys.at_least(lanes * lane).chunks_exact_mut(lane);
        let turned_values = turned_values.at_least(lanes * lane).chunks_exact_mut(lane);
        let of_keys = layout.lanes * layout.group();
        let keys = keys.at_least(lanes * of_keys).chunks_exact_mut(of_keys);
        for (at, ((turned_keys, turned_values), keys)) in turned_keys.zip(turned_values).zip(keys).enumerate() {
            let first = at * R::COLUMNS;
            gather(layout, self.part(1).rows(first, R::COLUMNS, tokens), gathered);
            registers.turn(layout, gathered, turned_keys);
            registers.split_by_lanes(layout, gathered, keys);
            gather(layout, self.part(2).rows(first, R::COLUMNS, tokens), gathered);
            registers.turn(layout, gathered, turned_values);
        }
    }

    fn lay_queries(&self, own: Range<usize>, scratch: &mut Scratch) {
        let (layout, registers) = (self.layout(), self.registers);
        let whole = |all| Part { all, parts: 1, part: 0, head: self.head };
        let tiles = own.len().div_ceil(R::ROWS);
        let by_tiles = layout.by_tiles(tiles);
        let gathered = scratch.gathered.at_least(layout.gathered(R::ROWS));
        let OfQueries { queries, of_outputs, queries_by_tiles, of_outputs_by_tiles, deltas, weightings, .. } =
            &mut scratch.queries;
        let queries = queries.at_least(tiles * layout.tile()).chunks_exact_mut(layout.tile());
        let of_outputs = of_outputs.at_least(tiles * layout.tile()).chunks_exact_mut(layout.tile());
        let queries_by_tiles = queries_by_tiles.at_least(layout.tiles * by_tiles);
        let of_outputs_by_tiles = of_outputs_by_tiles.at_least(layout.tiles * by_tiles);
        for (tile, (queries, of_outputs)) in queries.zip(of_outputs).enumerate() {
            let (first, part) = (own.start + tile * R::ROWS, layout.by_tiles(tile));
            gather(layout, self.part(0).rows(first, R::ROWS, own.end), gathered);
            registers.lay_side_by_side(layout, gathered, queries);
            registers.split_by_tiles(layout, gathered, &mut queries_by_tiles[part..], by_tiles);
            gather(layout, whole(self.gradient).rows(first, R::ROWS, own.end), gathered);
            registers.lay_side_by_side(layout, gathered, of_outputs);
            registers.split_by_tiles(layout, gathered, &mut of_outputs_by_tiles[part..], by_tiles);
        }
        // To whole tiles: fp32's products leave these rows out, where words are pairs `pull_back_tile` makes them zero.
        weightings.clear();
        weightings.extend_from_slice(&self.weightings[own.clone()]);
        weightings.resize(tiles * R::ROWS, Weighting::default());
        deltas.clear();
        deltas.extend(own.map(|query| {
            let outputs = [Some(self.output), self.remainders].into_iter().flatten();
            let gradient = whole(self.gradient).row(query);
            outputs.map(|output| dot(gradient, whole(output).row(query))).sum::<f32>()
        }));
        deltas.resize(tiles * R::ROWS, 0.0);
    }

    /// The weights of these queries by a lane of keys, and the gradients of their scores.
    fn make_scores(&self, count: usize, lane: usize, scratch: &mut Scratch) {
        let (layout, registers) = (self.layout(), self.registers);
        let (tiles, tile) = (count.div_ceil(R::ROWS), R::ROWS * R::COLUMNS);
        let present = R::COLUMNS.min(self.head.shape.tokens - lane * R::COLUMNS);
        let Scratch { keys, queries, scores, of_weights, weights, of_scores, of_scores_by_rows, .. } = scratch;
        let (scores, of_weights) = (scores.at_least(tile), of_weights.at_least(tile));
        let words = tile / R::PER_WORD;
        let weights = weights.at_least(tiles * words).chunks_exact_mut(words);
        let of_scores = of_scores.at_least(tiles * words).chunks_exact_mut(words);
        let by_rows = of_scores_by_rows.at_least(tiles * words).chunks_exact_mut(words);
        let own = lane * layout.lane()..(lane + 1) * layout.lane();
        let turned_keys = &keys.turned_keys.at_least(own.end)[own.clone()];
        let turned_values = &keys.turned_values.at_least(own.end)[own];
        let rows = queries.queries.at_least(tiles * layout.tile()).chunks_exact(layout.tile());
        let of_outputs = queries.of_outputs.at_least(tiles * layout.tile()).chunks_exact(layout.tile());
        let of_rows = queries.weightings.chunks_exact(R::ROWS).zip(queries.deltas.chunks_exact(R::ROWS));
        let places = weights.zip(of_scores).zip(by_rows);
        for (at, (((rows, of_outputs), (weightings, deltas)), ((weights, of_scores), of_scores_by_rows))) in
            rows.zip(of_outputs).zip(of_rows).zip(places).enumerate()
        {
            registers.multiply(rows, turned_keys, layout.words, scores, false);
            registers.multiply(of_outputs, turned_values, layout.words, of_weights, false);
            let there = R::ROWS.min(count - at * R::ROWS);
            let of_rows = OfRows { weightings, deltas, scale: self.head.scale(), queries: there, keys: present };
            registers.pull_back_tile(scores, of_weights, of_rows, OfTile { weights, of_scores, of_scores_by_rows });
        }
    }

    /// What follows from them for queries, keys and values.
    fn pull_back_scores(&self, own: Range<usize>, lane: usize, scratch: &mut Scratch) {
        let (layout, registers) = (self.layout(), self.registers);
        let (tiles, tile) = (own.len().div_ceil(R::ROWS), R::ROWS * R::COLUMNS);
        let (by_tiles, words) = (layout.by_tiles(tiles), tiles * tile / R::PER_WORD);
        let Scratch { keys, queries, weights, of_scores, of_scores_by_rows, .. } = scratch;
        let (weights, of_scores) = (weights.at_least(words), of_scores.at_least(words));
        let turned = lane * layout.turned()..(lane + 1) * layout.turned();
        let OfKeys { keys, of_keys, of_values, .. } = keys;
        let OfQueries { queries_by_tiles, of_outputs_by_tiles, of_queries, .. } = queries;
        for (factors, lines, gradients) in
            [(of_outputs_by_tiles, &*weights, of_values), (queries_by_tiles, &*of_scores, of_keys)]
        {
            let gradients = &mut gradients.at_least(turned.end)[turned.clone()];
            let factors = factors.at_least(layout.tiles * by_tiles).chunks_exact(by_tiles);
            for (factor, sums) in factors.zip(gradients.chunks_exact_mut(tile)) {
                registers.multiply(factor, lines, own.len().div_ceil(R::PER_WORD), sums, own.start > 0);
            }
        }
        let of_keys = layout.lanes * layout.group();
        let keys = &keys.at_least((lane + 1) * of_keys)[lane * of_keys..];
        let present = R::COLUMNS.min(self.head.shape.tokens - lane * R::COLUMNS);
        let by_rows = if R::PER_WORD == 1 { &*of_scores } else { of_scores_by_rows.at_least(words) };
        let of_queries = of_queries.at_least(tiles * R::ROWS * layout.row());
        let of_tiles = of_queries.chunks_exact_mut(R::ROWS * layout.row());
        for (rows, sums) in by_rows.chunks_exact(tile / R::PER_WORD).zip(of_tiles) {
            for (keys, column) in keys.chunks_exact(layout.group()).zip((0..).step_by(R::COLUMNS)) {
                let sums = (&mut sums[column..], layout.row());
                registers.multiply_rows(rows, keys, present.div_ceil(R::PER_WORD), sums, lane > 0);
            }
        }
    }
}
