use std::{cell::RefCell, ops::Range};

use tch::Tensor;

use super::*;
use crate::{
    attention::x86::deal,
    element::{allocate, values},
    parallel::Destination,
};

/// Keys whose weights are multiplied at a time: they stay in the first-level cache while all values of a row pass.
const KEYS: usize = 256;

/// What a thread keeps from one head to the next.
#[derive(Default)]
struct Scratch {
    /// Six keys side by side.
    keys: Aligned<f32>,
    /// Six values of each row of values, one after the other.
    values_by_six: Aligned<f32>,
    /// Lines of sixteen queries.
    turned_queries: Aligned<f32>,
    /// Those queries' scores, which become weights: a line for each key.
    weights: Aligned<f32>,
    /// Lines of sixteen results.
    turned_results: Aligned<f32>,
    /// Rows that have been gathered.
    stage: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// (N, T, 3·H·head) → (N, T, H·head), and if they are wanted the weightings (N·H·T). The CPU has AVX2.
pub(crate) fn self_attention<E: Element>(qkv: &Tensor, shape: Shape, keep: bool) -> (Tensor, Vec<Weighting>) {
    let Shape { samples, tokens, heads, head } = shape;
    let (result, start) = allocate::<E>(&[samples as i64, tokens as i64, (heads * head) as i64]);
    let mut kept = vec![Weighting::default(); if keep { samples * heads * tokens } else { 0 }];
    let (qkv, result_at, kept_at) = (values::<E>(qkv), Destination::new(start), Destination::new(kept.as_mut_ptr()));
    deal(shape, LANES, &|head, queries| {
        let mut ignored = Vec::new();
        // SAFETY: each task has queries of its own; what is written to outlives them. The CPU has the instructions.
        unsafe {
            let weightings = if keep {
                kept_at.slice(head.index() * tokens + queries.start, queries.len())
            } else {
                ignored.resize(queries.len(), Weighting::default());
                &mut ignored[..]
            };
            let result = |query: usize| result_at.slice(head.start(1, 0, query), shape.head);
            attend(qkv, head, queries, weightings, &result);
        }
    });
    (result, kept)
}

/// `queries` of one head; `result` gives the place for a query's.
#[target_feature(enable = "avx2,fma")]
fn attend<'a, E: Element>(
    qkv: &[E],
    head: Head,
    queries: Range<usize>,
    weightings: &mut [Weighting],
    result: &dyn Fn(usize) -> &'a mut [MaybeUninit<E>],
) {
    let Shape { tokens, head: width, .. } = head.shape;
    let [all_queries, all_keys, all_values] = [0, 1, 2].map(|part| Part { all: qkv, parts: 3, part, head });
    let layout = Layout { head: width };
    let key_tiles = tokens.div_ceil(ROWS);
    let scale = 1.0 / (width as f32).sqrt();
    SCRATCH.with_borrow_mut(|scratch| {
        let by_six = key_tiles * ROWS * ROWS;
        let stage = scratch.stage.at_least(layout.rows(LANES));
        let keys = scratch.keys.at_least(key_tiles * layout.tile());
        let values = scratch.values_by_six.at_least(layout.tiles() * by_six);
        let turned_queries = scratch.turned_queries.at_least(layout.lane());
        let weights = scratch.weights.at_least(key_tiles * TILE);
        let turned = scratch.turned_results.at_least(layout.turned());

        for (tile, place) in keys.chunks_exact_mut(layout.tile()).enumerate() {
            let first = tile * ROWS;
            layout.gather(all_keys, (first, ROWS), tokens, stage);
            layout.lay_side_by_side(stage, place);
            layout.gather(all_values, (first, ROWS), tokens, stage);
            layout.part_by_six(stage, (first, ROWS), values, by_six);
        }

        for first in queries.clone().step_by(LANES) {
            let count = LANES.min(queries.end - first);
            layout.gather(all_queries, (first, LANES), queries.end, stage);
            layout.turn(stage, turned_queries);
            for (keys, scores) in keys.chunks_exact(layout.tile()).zip(weights.chunks_exact_mut(TILE)) {
                multiply(keys, turned_queries, width, scores, false);
            }
            let (offsets, factors) = weigh(&mut weights[..tokens * LANES], scale);
            for first_key in (0..tokens).step_by(KEYS) {
                let count = KEYS.min(tokens - first_key);
                let weights = &weights[first_key * LANES..];
                for (values, sums) in values.chunks_exact(by_six).zip(turned.chunks_exact_mut(TILE)) {
                    multiply(&values[first_key * ROWS..], weights, count, sums, first_key > 0);
                }
            }
            scale_columns(turned, factors);
            layout.turn_back(turned, count, stage, |row, values| write(values, result(first + row)));
            let mut of_lanes = [[0.0; LANES]; 2];
            // SAFETY: a register's words.
            unsafe {
                v::store(of_lanes[0].as_mut_ptr(), offsets);
                v::store(of_lanes[1].as_mut_ptr(), factors);
            }
            for (row, weighting) in weightings[first - queries.start..].iter_mut().enumerate().take(count) {
                *weighting = Weighting { offset: of_lanes[0][row], factor: of_lanes[1][row] };
            }
        }
    });
}

/// Makes weights, but for their sums, of scores, a line for each key; gives what makes them, a lane for each query.
#[target_feature(enable = "avx2,fma")]
fn weigh(scores: &mut [f32], scale: f32) -> (Floats, Floats) {
    let (lines, _) = scores.as_chunks_mut::<LANES>();
    let factor = v::splat(scale * LOG2_E);
    let mut greatest = v::splat(f32::NEG_INFINITY);
    for line in lines.iter() {
        // SAFETY: a line is two registers.
        greatest = v::max(greatest, unsafe { v::load(line.as_ptr()) });
    }
    let offsets = v::sub(v::zero(), v::mul(greatest, factor));
    let mut sums = v::zero();
    for line in lines {
        // SAFETY: a line is two registers.
        unsafe {
            let weights = exp2(v::mul_add(v::load(line.as_ptr()), factor, offsets));
            sums = v::add(sums, weights);
            v::store(line.as_mut_ptr(), weights);
        }
    }
    (offsets, v::div(v::splat(1.0), sums))
}

#[target_feature(enable = "avx2,fma")]
fn scale_columns(lines: &mut [f32], factors: Floats) {
    for line in lines.as_chunks_mut::<LANES>().0 {
        // SAFETY: a line is two registers.
        unsafe { v::store(line.as_mut_ptr(), v::mul(v::load(line.as_ptr()), factors)) };
    }
}
