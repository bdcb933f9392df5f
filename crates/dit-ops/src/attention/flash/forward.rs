use std::{cell::RefCell, f32::consts::LOG2_E, ops::Range};

use tch::{Kind, Tensor};

use super::*;
use crate::{
    aligned::Aligned,
    attention::heads::deal,
    element::{allocate, values},
    parallel::Destination,
};

/// Words of a lane of weights that are multiplied at a time: they stay in the first-level cache while all values of a row pass.
const STRETCH: usize = 4096;

/// What a thread keeps from one head to the next.
#[derive(Default)]
struct Scratch {
    /// The keys of a tile side by side.
    keys: Aligned<u32>,
    /// Values, split by tiles.
    values: Aligned<u32>,
    /// A lane of queries.
    turned_queries: Aligned<u32>,
    /// Those queries' scores, a line for each key, which become weights.
    weights: Aligned<u32>,
    /// Those queries' results, a line for each value.
    turned_results: Aligned<u32>,
    /// Rows that have been gathered.
    gathered: Aligned<u32>,
    results: Aligned<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// (N, T, 3·H·head), contiguous → (N, T, H·head), and if it is wanted what the backward pass takes.
pub(crate) fn self_attention<R: Registers>(
    registers: R,
    qkv: &Tensor,
    shape: Shape,
    keep: bool,
) -> (Tensor, Option<Kept>) {
    let Shape { samples, tokens, heads, head } = shape;
    let sizes = [samples as i64, tokens as i64, (heads * head) as i64];
    let (result, start) = allocate::<R::Element>(&sizes);
    let remainders = (keep && R::Element::KIND != Kind::Float).then(|| allocate::<R::Element>(&sizes));
    let mut weightings = vec![Weighting::default(); if keep { samples * heads * tokens } else { 0 }];
    let (qkv, result_at) = (values::<R::Element>(qkv), Destination::new(start));
    let remainders_at = remainders.as_ref().map(|(_, start)| Destination::new(*start));
    let weightings_at = Destination::new(weightings.as_mut_ptr());
    deal(shape, R::COLUMNS, &|head, queries| {
        // SAFETY: each task has queries of its own, and what is written to outlives them.
        let put = |query: usize, values: &[f32], weighting: Weighting| unsafe {
            let start = head.start(1, 0, query);
            write(values, weighting.factor, result_at.slice(start, values.len()));
            if let Some(remainders_at) = remainders_at {
                write_remainders(values, weighting.factor, remainders_at.slice(start, values.len()));
            }
            if keep {
                *weightings_at.at(head.index() * tokens + query) = weighting;
            }
        };
        attend(registers, qkv, head, queries, &put);
    });
    let remainders = remainders.map(|(tensor, _)| tensor);
    (result, keep.then_some(Kept { weightings, remainders }))
}

/// `put` is given the results of each of the `queries` of one head, but for the factor, and what made its weights.
fn attend<R: Registers>(
    registers: R,
    qkv: &[R::Element],
    head: Head,
    queries: Range<usize>,
    put: &dyn Fn(usize, &[f32], Weighting),
) {
    let tokens = head.shape.tokens;
    let [all_queries, all_keys, all_values] = [0, 1, 2].map(|part| Part { all: qkv, parts: 3, part, head });
    let layout = Layout::<R>::of(head.shape.head);
    let key_tiles = tokens.div_ceil(R::ROWS);
    let factor = head.scale() * LOG2_E;
    SCRATCH.with_borrow_mut(|scratch| {
        let by_tiles = layout.by_tiles(key_tiles);
        let gathered = scratch.gathered.at_least(layout.gathered(R::ROWS.max(R::COLUMNS)));
        let keys = scratch.keys.at_least(key_tiles * layout.tile());
        let values = scratch.values.at_least(layout.tiles * by_tiles);
        let turned_queries = scratch.turned_queries.at_least(layout.lane());
        let weights = scratch.weights.at_least(key_tiles * R::ROWS * R::COLUMNS);
        let turned = scratch.turned_results.at_least(layout.turned());
        let results = scratch.results.at_least(R::COLUMNS * layout.row());

        for (tile, place) in keys.chunks_exact_mut(layout.tile()).enumerate() {
            let first = tile * R::ROWS;
            gather(layout, all_keys.rows(first, R::ROWS, tokens), gathered);
            registers.lay_side_by_side(layout, gathered, place);
            gather(layout, all_values.rows(first, R::ROWS, tokens), gathered);
            registers.split_by_tiles(layout, gathered, &mut values[layout.by_tiles(tile)..], by_tiles);
        }

        for first in queries.clone().step_by(R::COLUMNS) {
            gather(layout, all_queries.rows(first, R::COLUMNS, queries.end), gathered);
            registers.turn(layout, gathered, turned_queries);
            let tiles = keys.chunks_exact(layout.tile()).zip(weights.chunks_exact_mut(R::ROWS * R::COLUMNS));
            for (keys, scores) in tiles {
                registers.multiply(keys, turned_queries, layout.words, scores, false);
            }
            let mut weightings = [Weighting::default(); MOST_COLUMNS];
            registers.weigh(weights, tokens, factor, &mut weightings[..R::COLUMNS]);
            let (words, stretch) = (tokens.div_ceil(R::PER_WORD), STRETCH / R::COLUMNS);
            for done in (0..words).step_by(stretch) {
                let (depth, weights) = (stretch.min(words - done), &weights[done * R::COLUMNS..]);
                for (values, sums) in values.chunks_exact(by_tiles).zip(turned.chunks_exact_mut(R::ROWS * R::COLUMNS)) {
                    registers.multiply(&values[done * R::ROWS..], weights, depth, sums, done > 0);
                }
            }
            registers.turn_back(layout, turned, results);
            for ((query, values), weighting) in
                (first..queries.end).zip(results.chunks_exact(layout.row())).zip(weightings).take(R::COLUMNS)
            {
                put(query, &values[..layout.head], weighting);
            }
        }
    });
}
