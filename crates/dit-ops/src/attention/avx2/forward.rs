use std::{cell::RefCell, ops::Range};

use tch::{Kind, Tensor};

use super::*;
use crate::{
    attention::x86::deal,
    cpu::Cpu,
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

/// (N, T, 3·H·head), contiguous and of `E` → (N, T, H·head), and if it is wanted what the backward pass takes.
///
/// # Panics
/// If the CPU has no AVX2.
pub(crate) fn self_attention<E: Element>(qkv: &Tensor, shape: Shape, keep: bool) -> (Tensor, Option<Kept>) {
    assert!(Cpu::detect().avx2);
    let Shape { samples, tokens, heads, head } = shape;
    let sizes = [samples as i64, tokens as i64, (heads * head) as i64];
    let (result, start) = allocate::<E>(&sizes);
    let remainders = (keep && E::KIND != Kind::Float).then(|| allocate::<E>(&sizes));
    let mut weightings = vec![Weighting::default(); if keep { samples * heads * tokens } else { 0 }];
    let (qkv, result_at) = (values::<E>(qkv), Destination::new(start));
    let remainders_at = remainders.as_ref().map(|(_, start)| Destination::new(*start));
    let weightings_at = Destination::new(weightings.as_mut_ptr());
    deal(shape, LANES, &|head, queries| {
        // SAFETY: each task has queries of its own, and what is written to outlives them.
        let put = |query: usize, values: &[f32], weighting: Weighting| unsafe {
            let start = head.start(1, 0, query);
            write(values, result_at.slice(start, values.len()));
            if let Some(remainders_at) = remainders_at {
                write_remainders::<E>(values, remainders_at.slice(start, values.len()));
            }
            if keep {
                *weightings_at.at(head.index() * tokens + query) = weighting;
            }
        };
        // SAFETY: the CPU has the instructions, as asserted.
        unsafe { attend(qkv, head, queries, &put) };
    });
    let remainders = remainders.map(|(tensor, _)| tensor);
    (result, keep.then_some(Kept { weightings, remainders }))
}

/// What [`write`] rounds off, rounded.
#[target_feature(enable = "avx2,fma")]
fn write_remainders<E: Element>(values: &[f32], place: &mut [MaybeUninit<E>]) {
    for (place, &value) in place.iter_mut().zip(values) {
        place.write(E::from_f32(value - E::from_f32(value).to_f32()));
    }
}

/// `put` is given the results of each of the `queries` of one head, and what made its weights.
#[target_feature(enable = "avx2,fma")]
fn attend<E: Element>(qkv: &[E], head: Head, queries: Range<usize>, put: &dyn Fn(usize, &[f32], Weighting)) {
    let Shape { tokens, head: width, .. } = head.shape;
    let [all_queries, all_keys, all_values] = [0, 1, 2].map(|part| Part { all: qkv, parts: 3, part, head });
    let layout = Layout { head: width };
    let key_tiles = tokens.div_ceil(ROWS);
    let factor = head.scale() * LOG2_E;
    SCRATCH.with_borrow_mut(|scratch| {
        let by_six = by_six(key_tiles);
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
            let weightings = weigh(&mut weights[..tokens * LANES], factor);
            for first_key in (0..tokens).step_by(KEYS) {
                let count = KEYS.min(tokens - first_key);
                let weights = &weights[first_key * LANES..];
                for (values, sums) in values.chunks_exact(by_six).zip(turned.chunks_exact_mut(TILE)) {
                    multiply(&values[first_key * ROWS..], weights, count, sums, first_key > 0);
                }
            }
            layout.turn_back(turned, count, stage, |row, values| {
                let weighting = weightings[row];
                values.iter_mut().for_each(|value| *value *= weighting.factor);
                put(first + row, values, weighting);
            });
        }
    });
}

/// Makes weights, but for the division by their sums, of scores: a line for each key, in which each query has its place. Gives what does.
#[target_feature(enable = "avx2,fma")]
fn weigh(scores: &mut [f32], factor: f32) -> [Weighting; LANES] {
    let (lines, _) = scores.as_chunks_mut::<LANES>();
    let mut greatest = v::splat(f32::NEG_INFINITY);
    for line in lines.iter() {
        // SAFETY: a line is two registers.
        greatest = v::max(greatest, unsafe { v::load(line.as_ptr()) });
    }
    let mut sums = v::zero();
    for line in lines {
        // SAFETY: a line is two registers.
        unsafe {
            let weights = exponentials(v::load(line.as_ptr()), greatest, v::splat(factor));
            sums = v::add(sums, weights);
            v::store(line.as_mut_ptr(), weights);
        }
    }
    let mut of_lanes = [[0.0; LANES]; 2];
    // SAFETY: a line is two registers.
    unsafe {
        v::store(of_lanes[0].as_mut_ptr(), greatest);
        v::store(of_lanes[1].as_mut_ptr(), v::div(v::splat(1.0), sums));
    }
    std::array::from_fn(|lane| Weighting { greatest: of_lanes[0][lane], factor: of_lanes[1][lane] })
}
