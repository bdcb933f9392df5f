//! Attention with AMX, in bf16: a head's keys and values are packed once into panels, then a few queries at a time go through
//! scores, softmax and weighted sum without leaving the caches.

use std::{cell::RefCell, mem::MaybeUninit, ops::Range};

use tch::Tensor;

use super::{
    Shape,
    heads::{Head, deal},
    softmax,
};
use crate::{
    aligned::Aligned,
    amx::{self, ROWS, Tiles},
    cpu::Cpu,
    element::{Bf16, Element, allocate, values},
    gemm::Line,
    parallel::Destination,
};

/// Registers of a tile of scores.
const SCORE_LANES: usize = 4;
/// Keys of a panel.
const KEYS: usize = 16 * SCORE_LANES;
/// Most registers of a tile of results.
const MOST_LANES: usize = 5;
/// Queries that are dealt out together.
const DEALT_QUERIES: usize = 96;
/// Queries that pass together: two tiles.
const QUERIES: usize = 2 * ROWS;
/// Elements in a word.
const PER_WORD: usize = 2;
/// Words whose multiple the inner dimension of the scores is made.
const WORDS: usize = 16;

// No part of a head ends within a tile.
const _: () = assert!(DEALT_QUERIES.is_multiple_of(QUERIES));

/// One head of one sample, and which of its queries.
struct Job<'a> {
    qkv: &'a [Bf16],
    head: Head,
    queries: Range<usize>,
    result: Destination<MaybeUninit<Bf16>>,
}

impl Job<'_> {
    /// The values of this head of query (part 0), key (1) or value (2) `token`.
    #[inline(always)]
    fn row(&self, part: usize, token: usize) -> &[Bf16] {
        self.head.row(self.qkv, 3, part, token)
    }
}

/// Memory that a thread keeps: taking it anew for each head would cost as much as the attention.
#[derive(Default)]
struct Scratch {
    keys: Vec<Line>,
    values: Vec<Line>,
    /// Of as many rows as pass together.
    scores: Aligned<f32>,
    weights: Aligned<u32>,
    queries: Aligned<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// (N, T, 3·H·head) → (N, T, H·head).
///
/// # Panics
/// If the CPU has no AMX, or no AVX-512 BF16.
pub(super) fn self_attention(qkv: &Tensor, shape: Shape) -> Tensor {
    let cpu = Cpu::detect();
    assert!(cpu.amx && cpu.avx512_bf16);
    let Shape { samples, tokens, heads, head } = shape;
    let (result, start) = allocate::<Bf16>(&[samples as i64, tokens as i64, (heads * head) as i64]);
    let (qkv, result_at) = (values::<Bf16>(qkv), Destination::new(start));
    deal(shape, DEALT_QUERIES, &|head, queries| {
        let job = Job { qkv, head, queries, result: result_at };
        // SAFETY: the CPU has the instructions, as asserted; each task has a head, or a part of its queries, of its own.
        SCRATCH.with_borrow_mut(|scratch| unsafe {
            let _tiles = Tiles::of_rows(ROWS);
            attend(&job, scratch);
        });
    });
    result
}

/// # Safety
/// The CPU has the instructions, and there are [`Tiles`] of sixteen rows; `job` writes to a place of its own.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn attend(job: &Job<'_>, scratch: &mut Scratch) {
    let Shape { tokens, head, .. } = job.head.shape;
    // Words past a head's last are zero.
    let depth = (head / PER_WORD).next_multiple_of(WORDS);
    let panels = tokens.div_ceil(KEYS);
    let padded = panels * KEYS;
    let words = padded / PER_WORD;
    let lanes = head.div_ceil(16);
    let value_panels = lanes.div_ceil(MOST_LANES);
    let Scratch { keys, values, scores, weights, queries } = scratch;
    keys.resize(panels * depth * SCORE_LANES, Line([0; 16]));
    values.resize(words * lanes, Line([0; 16]));
    let (scores, weights) = (scores.at_least(QUERIES * padded), weights.at_least(QUERIES * words));
    let queries = queries.at_least(QUERIES * depth);
    pack_keys(job, keys, depth);
    pack_values(job, values, lanes, words);
    let scale = job.head.scale();
    let mut sums = [0_u32; ROWS * MOST_LANES * 16];
    let mut first = job.queries.start;
    while first < job.queries.end {
        let rows = QUERIES.min(job.queries.end - first);
        copy_queries(job, first, rows, queries, depth);
        for tile in 0..rows.div_ceil(ROWS) {
            let queries = queries[tile * ROWS * depth..].as_ptr();
            for panel in 0..panels {
                let keys = keys[panel * depth * SCORE_LANES..][..depth * SCORE_LANES].as_ptr();
                let scores = &mut scores[tile * ROWS * padded..][..ROWS * padded];
                // SAFETY: every query has `depth` words, the panel its lines, and the tile's rows of scores room for
                // panel `panel`.
                unsafe {
                    let scores = scores.as_mut_ptr().add(panel * KEYS).cast::<u32>();
                    strip::<SCORE_LANES>(queries, keys, depth, scores, padded);
                }
            }
        }
        let mut totals = [0.0; QUERIES];
        for (row, total) in totals.iter_mut().enumerate().take(rows) {
            let scores = &scores[row * padded..][..padded];
            *total = softmax::bf16(scores, tokens, scale, &mut weights[row * words..][..words]);
        }
        for panel in 0..value_panels {
            let first_lane = panel * MOST_LANES;
            let panel_lanes = MOST_LANES.min(lanes - first_lane);
            let start = first_lane * words;
            let values = values[start..][..panel_lanes * words].as_ptr();
            for tile in 0..rows.div_ceil(ROWS) {
                let first_row = tile * ROWS;
                let weights = weights[first_row * words..].as_ptr();
                let width = panel_lanes * 16;
                let place = sums.as_mut_ptr();
                // SAFETY: every row of weights has `words` words, the panel its lines, `sums` room for the tile.
                unsafe {
                    match panel_lanes {
                        1 => strip::<1>(weights, values, words, place, width),
                        2 => strip::<2>(weights, values, words, place, width),
                        3 => strip::<3>(weights, values, words, place, width),
                        4 => strip::<4>(weights, values, words, place, width),
                        _ => strip::<MOST_LANES>(weights, values, words, place, width),
                    }
                }
                for row in first_row..rows.min(first_row + ROWS) {
                    let column = first_lane * 16;
                    let count = width.min(head - column);
                    let start = job.head.start(1, 0, first + row) + column;
                    // SAFETY: this query's results of this head are this task's own.
                    let results = unsafe { job.result.slice(start, count) };
                    let factor = 1.0 / totals[row];
                    for (result, &sum) in results.iter_mut().zip(&sums[(row - first_row) * width..]) {
                        result.write(Bf16::from_f32(f32::from_bits(sum) * factor));
                    }
                }
            }
        }
        first += rows;
    }
}

/// Sums of a tile's rows by one panel; rows of `depth` words follow one another.
///
/// # Safety
/// As [`amx::bf16::strip`].
#[inline]
unsafe fn strip<const LANES: usize>(rows: *const u32, panel: *const Line, depth: usize, sums: *mut u32, stride: usize) {
    let rows = amx::Rows { start: rows, stride: depth, count: ROWS };
    // SAFETY: the caller's promise.
    unsafe { amx::bf16::strip::<LANES>(rows, panel, depth, sums, stride) }
}

/// The word of two elements.
#[inline(always)]
fn join([first, second]: [Bf16; 2]) -> u32 {
    u32::from(first.0) | u32::from(second.0) << 16
}

/// Keys as columns: word by word, a panel's keys beside each other. Keys past the last, and words past a key's, are zero.
#[inline(always)]
fn pack_keys(job: &Job<'_>, lines: &mut [Line], depth: usize) {
    for (panel, lines) in lines.chunks_exact_mut(depth * SCORE_LANES).enumerate() {
        for column in 0..KEYS {
            let token = panel * KEYS + column;
            let (lane, place) = (column / 16, column % 16);
            if token < job.head.shape.tokens {
                let pairs = job.row(1, token).as_chunks::<PER_WORD>().0;
                let (own, past) = lines.split_at_mut(pairs.len() * SCORE_LANES);
                for (&pair, line) in pairs.iter().zip(own.chunks_exact_mut(SCORE_LANES)) {
                    line[lane].0[place] = join(pair);
                }
                for line in past.chunks_exact_mut(SCORE_LANES) {
                    line[lane].0[place] = 0;
                }
            } else {
                for line in lines.chunks_exact_mut(SCORE_LANES) {
                    line[lane].0[place] = 0;
                }
            }
        }
    }
}

/// Values as they lie, `PER_WORD` tokens to a word, in panels of up to [`MOST_LANES`] registers. Tokens and columns past the last
/// are zero.
#[inline(always)]
fn pack_values(job: &Job<'_>, lines: &mut [Line], lanes: usize, words: usize) {
    let Shape { tokens, head, .. } = job.head.shape;
    let zero = Bf16(0);
    for word in 0..words {
        for lane in 0..lanes {
            let (panel, within) = (lane / MOST_LANES, lane % MOST_LANES);
            let panel_lanes = MOST_LANES.min(lanes - panel * MOST_LANES);
            let line = &mut lines[panel * MOST_LANES * words + word * panel_lanes + within];
            let columns = lane * 16..head.min(lane * 16 + 16);
            let mut parts = [[zero; 16]; 2];
            for (offset, part) in parts.iter_mut().enumerate() {
                let token = word * PER_WORD + offset;
                if token < tokens {
                    part[..columns.len()].copy_from_slice(&job.row(2, token)[columns.clone()]);
                }
            }
            let [first, second] = parts;
            for (place, (first, second)) in line.0.iter_mut().zip(first.into_iter().zip(second)) {
                *place = join([first, second]);
            }
        }
    }
}

/// Queries as words, zero past a query's; queries past the last repeat whatever was there, and their results are dropped.
#[inline(always)]
fn copy_queries(job: &Job<'_>, first: usize, rows: usize, queries: &mut [u32], depth: usize) {
    for (row, words) in queries.chunks_exact_mut(depth).enumerate().take(rows) {
        let pairs = job.row(0, first + row).as_chunks::<PER_WORD>().0;
        words[pairs.len()..].fill(0);
        for (word, &pair) in words.iter_mut().zip(pairs) {
            *word = join(pair);
        }
    }
}
