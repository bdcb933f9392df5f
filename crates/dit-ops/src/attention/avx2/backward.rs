use std::{cell::RefCell, ops::Range};

use tch::Tensor;

use super::*;
use crate::{
    cpu::Cpu,
    element::{allocate, values},
    parallel::{self, Destination},
};

/// Queries that pass at a time: their part of the second-level cache is half of it, that of their weights by sixteen keys a third of the first.
const QUERIES: usize = 144;

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
/// (Dao et al. 2022, "FlashAttention", appendix B). δ is of results as they were before they were rounded: the rows of dS would sum to its error.
///
/// # Panics
/// If the CPU has no AVX2, or a tensor is not contiguous, of `E` and of the shape.
pub(crate) fn pull_back<E: Element>(given: &Given<'_>) -> Tensor {
    assert!(Cpu::detect().avx2);
    let shape = given.shape;
    let Shape { samples, tokens, heads, head: width } = shape;
    let (result, start) = allocate::<E>(&[samples as i64, tokens as i64, (3 * heads * width) as i64]);
    let destination = Destination::new(start);
    let [qkv, output, gradient] = [given.qkv, given.output, given.gradient].map(values::<E>);
    let Kept { weightings, remainders } = given.kept;
    let remainders = remainders.as_ref().map(values::<E>);
    parallel::for_each(samples * heads, &|task| {
        let head = Head::at(shape, task);
        let weightings = &weightings[task * tokens..][..tokens];
        let own = OneHead { qkv, output, remainders, gradient, weightings, head };
        // SAFETY: each task has a head of its own; the tensor outlives them.
        let put = |part: usize, token: usize, values: &[f32]| unsafe {
            write(values, destination.slice(head.start(3, part, token), values.len()));
        };
        // SAFETY: the CPU has the instructions, as asserted.
        unsafe { own.pull_back(&put) };
    });
    result
}

/// What a thread keeps from one head to the next.
#[derive(Default)]
struct Scratch {
    keys: OfKeys,
    queries: OfQueries,
    /// By one panel's keys: tiles of scores, which become weights, which become gradients of scores.
    weights: Aligned<f32>,
    /// A tile of gradients of weights.
    of_weights: Aligned<f32>,
    /// Rows that have been gathered.
    stage: Aligned<f32>,
    outputs: Aligned<f32>,
}

/// A head's keys and values, a piece for each panel of sixteen.
#[derive(Default)]
struct OfKeys {
    /// Lines of sixteen keys, and values.
    turned_keys: Aligned<f32>,
    turned_values: Aligned<f32>,
    /// Sixteen values of each key to a line.
    keys: Aligned<f32>,
    /// Gradients, lines of sixteen keys.
    of_keys: Aligned<f32>,
    of_values: Aligned<f32>,
}

/// The queries that pass together.
#[derive(Default)]
struct OfQueries {
    /// Six queries side by side, and gradients of their results.
    queries: Aligned<f32>,
    of_outputs: Aligned<f32>,
    /// Six values of each of them, one after the other.
    queries_by_six: Aligned<f32>,
    of_outputs_by_six: Aligned<f32>,
    /// The sums δ.
    deltas: Aligned<f32>,
    /// Gradients, row by row.
    of_queries: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

struct OneHead<'a, E> {
    qkv: &'a [E],
    output: &'a [E],
    remainders: Option<&'a [E]>,
    gradient: &'a [E],
    /// Of this head's queries.
    weightings: &'a [Weighting],
    head: Head,
}

impl<E: Element> OneHead<'_, E> {
    fn layout(&self) -> Layout {
        Layout { head: self.head.shape.head }
    }

    /// Queries (0), keys (1) or values (2).
    fn part(&self, part: usize) -> Part<'_, E> {
        Part { all: self.qkv, parts: 3, part, head: self.head }
    }

    /// `put` is given the gradients of each part of each token.
    #[target_feature(enable = "avx2,fma")]
    fn pull_back(&self, put: &dyn Fn(usize, usize, &[f32])) {
        let (layout, tokens) = (self.layout(), self.head.shape.tokens);
        let panels = tokens.div_ceil(LANES);
        SCRATCH.with_borrow_mut(|scratch| {
            self.lay_keys(scratch);
            for first in (0..tokens).step_by(QUERIES) {
                let own = first..tokens.min(first + QUERIES);
                self.lay_queries(own.clone(), scratch);
                for panel in 0..panels {
                    self.pass(own.clone(), panel, scratch);
                }
                let rows = scratch.queries.of_queries.at_least(own.len() * layout.stride());
                for (values, query) in rows.chunks_exact(layout.stride()).zip(own) {
                    put(0, query, &values[..layout.head]);
                }
            }
            let OfKeys { of_keys, of_values, .. } = &mut scratch.keys;
            for (part, gradients) in [(1, of_keys), (2, of_values)] {
                let gradients = gradients.at_least(panels * layout.turned());
                let stage = scratch.stage.at_least(layout.rows(LANES));
                for (panel, gradients) in gradients.chunks_exact(layout.turned()).enumerate() {
                    let first = panel * LANES;
                    layout.turn_back(gradients, LANES.min(tokens - first), stage, |row, values| {
                        put(part, first + row, values);
                    });
                }
            }
        });
    }

    #[target_feature(enable = "avx2,fma")]
    fn lay_keys(&self, scratch: &mut Scratch) {
        let (layout, tokens) = (self.layout(), self.head.shape.tokens);
        let lane = layout.lane();
        let lanes = tokens.div_ceil(LANES) * lane;
        let stage = scratch.stage.at_least(layout.rows(LANES));
        let OfKeys { turned_keys, turned_values, keys, .. } = &mut scratch.keys;
        let turned_keys = turned_keys.at_least(lanes).chunks_exact_mut(lane);
        let turned_values = turned_values.at_least(lanes).chunks_exact_mut(lane);
        let keys = keys.at_least(lanes).chunks_exact_mut(lane);
        for (panel, ((turned_keys, turned_values), keys)) in turned_keys.zip(turned_values).zip(keys).enumerate() {
            layout.gather(self.part(1), (panel * LANES, LANES), tokens, stage);
            layout.turn(stage, turned_keys);
            layout.part_by_sixteen(stage, keys);
            layout.gather(self.part(2), (panel * LANES, LANES), tokens, stage);
            layout.turn(stage, turned_values);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn lay_queries(&self, own: Range<usize>, scratch: &mut Scratch) {
        let layout = self.layout();
        let whole = |all| Part { all, parts: 1, part: 0, head: self.head };
        let tiles = own.len().div_ceil(ROWS);
        let by_six = by_six(tiles);
        let stage = scratch.stage.at_least(layout.rows(LANES));
        let outputs = scratch.outputs.at_least(layout.rows(ROWS));
        let OfQueries { queries, of_outputs, queries_by_six, of_outputs_by_six, deltas, .. } = &mut scratch.queries;
        let queries = queries.at_least(tiles * layout.tile()).chunks_exact_mut(layout.tile());
        let of_outputs = of_outputs.at_least(tiles * layout.tile()).chunks_exact_mut(layout.tile());
        let queries_by_six = queries_by_six.at_least(layout.tiles() * by_six);
        let of_outputs_by_six = of_outputs_by_six.at_least(layout.tiles() * by_six);
        let deltas = deltas.at_least(tiles * ROWS).as_chunks_mut::<ROWS>().0.iter_mut();
        for (tile, ((queries, of_outputs), deltas)) in queries.zip(of_outputs).zip(deltas).enumerate() {
            let (within, tokens) = ((tile * ROWS, ROWS), (own.start + tile * ROWS, ROWS));
            layout.gather(self.part(0), tokens, own.end, stage);
            layout.lay_side_by_side(stage, queries);
            layout.part_by_six(stage, within, queries_by_six, by_six);
            layout.gather(whole(self.gradient), tokens, own.end, stage);
            layout.lay_side_by_side(stage, of_outputs);
            layout.part_by_six(stage, within, of_outputs_by_six, by_six);
            deltas.fill(0.0);
            for part in [Some(self.output), self.remainders].into_iter().flatten() {
                layout.gather(whole(part), tokens, own.end, outputs);
                let rows = stage.chunks_exact(layout.stride()).zip(outputs.chunks_exact(layout.stride()));
                for (delta, (gradient, output)) in deltas.iter_mut().zip(rows) {
                    *delta += dot(gradient, output);
                }
            }
        }
    }

    /// What these queries and a panel's keys and values give each other.
    #[target_feature(enable = "avx2,fma")]
    fn pass(&self, own: Range<usize>, panel: usize, scratch: &mut Scratch) {
        let (layout, scale, tokens) = (self.layout(), self.head.scale(), self.head.shape.tokens);
        let Layout { head: width } = layout;
        let (count, tiles) = (own.len(), own.len().div_ceil(ROWS));
        let by_six = by_six(tiles);
        let goes_on = own.start > 0;
        let Scratch { keys, queries, weights, of_weights, .. } = scratch;
        let (weights, of_weights) = (weights.at_least(tiles * TILE), of_weights.at_least(TILE));
        let lane = panel * layout.lane()..(panel + 1) * layout.lane();
        let turned = panel * layout.turned()..(panel + 1) * layout.turned();

        let turned_keys = &keys.turned_keys.at_least(lane.end)[lane.clone()];
        let rows = queries.queries.at_least(tiles * layout.tile()).chunks_exact(layout.tile());
        for (tile, (rows, weights)) in rows.zip(weights.chunks_exact_mut(TILE)).enumerate() {
            multiply(rows, turned_keys, width, weights, false);
            let first = own.start + tile * ROWS;
            weigh(weights, scale * LOG2_E, |row| self.weightings.get(first + row).copied().unwrap_or_default());
        }
        let of_values = &mut keys.of_values.at_least(turned.end)[turned.clone()];
        let values = queries.of_outputs_by_six.at_least(layout.tiles() * by_six).chunks_exact(by_six);
        for (values, sums) in values.zip(of_values.chunks_exact_mut(TILE)) {
            multiply(values, weights, count, sums, goes_on);
        }
        let turned_values = &keys.turned_values.at_least(lane.end)[lane.clone()];
        let rows = queries.of_outputs.at_least(tiles * layout.tile()).chunks_exact(layout.tile());
        let deltas = queries.deltas.at_least(tiles * ROWS).as_chunks::<ROWS>().0;
        for ((rows, deltas), weights) in rows.zip(deltas).zip(weights.chunks_exact_mut(TILE)) {
            multiply(rows, turned_values, width, of_weights, false);
            pull_back_weights(weights, of_weights, deltas, scale);
        }
        let of_keys = &mut keys.of_keys.at_least(turned.end)[turned];
        let values = queries.queries_by_six.at_least(layout.tiles() * by_six).chunks_exact(by_six);
        for (values, sums) in values.zip(of_keys.chunks_exact_mut(TILE)) {
            multiply(values, weights, count, sums, goes_on);
        }
        let keys = &keys.keys.at_least(lane.end)[lane];
        let of_queries = queries.of_queries.at_least(tiles * layout.tile()).chunks_exact_mut(layout.tile());
        for (weights, sums) in weights.chunks_exact(TILE).zip(of_queries) {
            for (keys, column) in keys.chunks_exact(LANES * LANES).zip((0..).step_by(LANES)) {
                let sums = (sums[column..].as_mut_ptr().cast(), layout.stride());
                let present = LANES.min(tokens - panel * LANES);
                // SAFETY: six queries' gradients by a panel's scores are there, sixteen values of each of its keys, and as many places in
                // each of six rows.
                unsafe {
                    let (weights, keys) = (weights.as_ptr().cast(), keys.as_ptr().cast());
                    add_products::<1, LANES>(weights, keys, present, sums, panel > 0);
                }
            }
        }
    }
}

/// A tile's weights of its scores.
#[target_feature(enable = "avx2,fma")]
fn weigh(scores: &mut [f32], factor: f32, weighting: impl Fn(usize) -> Weighting) {
    for (row, line) in scores.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let weighting = weighting(row);
        // SAFETY: a line is two registers.
        unsafe {
            let weights = exponentials(v::load(line.as_ptr()), v::splat(weighting.greatest), v::splat(factor));
            v::store(line.as_mut_ptr(), v::mul(weights, v::splat(weighting.factor)));
        }
    }
}

/// scale · weight · (its gradient − δ), in the place of the weights of a tile.
#[target_feature(enable = "avx2,fma")]
fn pull_back_weights(weights: &mut [f32], of_weights: &[f32], deltas: &[f32], scale: f32) {
    let lines = weights.as_chunks_mut::<LANES>().0.iter_mut().zip(of_weights.as_chunks::<LANES>().0);
    for ((weights, of_weights), &delta) in lines.zip(deltas) {
        // SAFETY: a line is two registers.
        unsafe {
            let of_scores = v::sub(v::load(of_weights.as_ptr()), v::splat(delta));
            let weights_scaled = v::mul(v::load(weights.as_ptr()), v::splat(scale));
            v::store(weights.as_mut_ptr(), v::mul(weights_scaled, of_scores));
        }
    }
}

/// Of rows of whole lines.
#[target_feature(enable = "avx2,fma")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = v::zero();
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        // SAFETY: a line is two registers.
        sums = unsafe { v::mul_add(v::load(a.as_ptr()), v::load(b.as_ptr()), sums) };
    }
    v::sum(sums)
}
