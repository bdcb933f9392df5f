//! Attention with AVX-512 or AMX: a head's keys and values are packed once into panels, then a few queries at a time go through
//! scores, softmax and weighted sum without leaving the caches.

use std::{cell::RefCell, mem::MaybeUninit, ops::Range};

use tch::Tensor;

use super::{
    Shape, softmax,
    x86::{Head, deal},
};
use crate::{
    aligned::Aligned,
    amx::{self, Tiles},
    avx512,
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
/// Queries that are dealt out together: a multiple of every kernel's.
const DEALT_QUERIES: usize = 96;

/// What a kernel takes at once.
struct Blocking {
    /// Queries that pass together: a multiple of both tiles' rows.
    queries: usize,
    /// Rows of a tile of scores, and of results.
    rows: usize,
    /// Rows of a tile of results with [`MOST_LANES`] registers.
    wide_rows: usize,
    /// Words whose multiple the inner dimension of the scores is made.
    words: usize,
}

const AVX512: Blocking = Blocking { queries: 24, rows: 6, wide_rows: 4, words: 1 };
const AMX: Blocking = Blocking { queries: 32, rows: 16, wide_rows: 16, words: 16 };

/// An element that has a kernel.
pub(super) trait Attend: Element {
    /// Elements in a 32-bit word.
    const PER_WORD: usize;

    /// The word of up to `PER_WORD` elements; those missing are zero.
    fn word(elements: impl Iterator<Item = Self>) -> u32;

    /// # Safety
    /// The CPU has the kernel's instructions; `job` writes to a place of its own.
    unsafe fn attend(job: &Job<'_, Self>, scratch: &mut Scratch);
}

/// One head of one sample, and which of its queries.
pub(super) struct Job<'a, E> {
    qkv: &'a [E],
    head: Head,
    queries: Range<usize>,
    result: Destination<MaybeUninit<E>>,
}

impl<E: Element> Job<'_, E> {
    /// The values of this head of query (part 0), key (1) or value (2) `token`.
    #[inline(always)]
    fn row(&self, part: usize, token: usize) -> &[E] {
        self.head.row(self.qkv, 3, part, token)
    }
}

/// Memory that a thread keeps: taking it anew for each head would cost as much as the attention.
#[derive(Default)]
pub(super) struct Scratch {
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

/// (N, T, 3·H·head) → (N, T, H·head). The caller has checked kind, device and CPU.
pub(super) fn self_attention<E: Attend>(qkv: &Tensor, shape: Shape) -> Tensor {
    let Shape { samples, tokens, heads, head } = shape;
    let (result, start) = allocate::<E>(&[samples as i64, tokens as i64, (heads * head) as i64]);
    let (qkv, result_at) = (values::<E>(qkv), Destination::new(start));
    deal(shape, DEALT_QUERIES, &|head, queries| {
        let job = Job { qkv, head, queries, result: result_at };
        // SAFETY: the caller has checked the CPU; each task has a head, or a part of its queries, of its own.
        SCRATCH.with_borrow_mut(|scratch| unsafe { E::attend(&job, scratch) });
    });
    result
}

impl Attend for f32 {
    const PER_WORD: usize = 1;

    #[inline(always)]
    fn word(mut elements: impl Iterator<Item = Self>) -> u32 {
        elements.next().unwrap_or(0.0).to_bits()
    }

    unsafe fn attend(job: &Job<'_, Self>, scratch: &mut Scratch) {
        // SAFETY: the caller's promise.
        unsafe { attend_f32(job, scratch) }
    }
}

impl Attend for Bf16 {
    const PER_WORD: usize = 2;

    #[inline(always)]
    fn word(mut elements: impl Iterator<Item = Self>) -> u32 {
        let mut half = || u32::from(elements.next().unwrap_or(Bf16(0)).0);
        half() | half() << 16
    }

    unsafe fn attend(job: &Job<'_, Self>, scratch: &mut Scratch) {
        // SAFETY: the caller's promise; AMX is there only beside the others.
        unsafe { if Cpu::detect().amx { attend_amx(job, scratch) } else { attend_bf16(job, scratch) } }
    }
}

macro_rules! attend {
    ($name:ident, $features:literal, $element:ty, $softmax:path, $module:ident, $blocking:ident) => {
        /// # Safety
        /// As [`Attend::attend`]; with [`AMX`], there are [`Tiles`] of sixteen rows.
        #[target_feature(enable = $features)]
        unsafe fn $name(job: &Job<'_, $element>, scratch: &mut Scratch) {
            let Shape { tokens, head, .. } = job.head.shape;
            const QUERIES: usize = $blocking.queries;
            const ROWS: usize = $blocking.rows;
            const WIDE_ROWS: usize = $blocking.wide_rows;
            // What `sums` and the rows behind weights and queries have room for; and no part of a head ends within a tile.
            const {
                assert!(QUERIES % ROWS == 0 && QUERIES % WIDE_ROWS == 0 && WIDE_ROWS <= ROWS);
                assert!(DEALT_QUERIES % QUERIES == 0);
            }
            // Words past a head's last are zero.
            let depth = (head / <$element>::PER_WORD).next_multiple_of($blocking.words);
            let panels = tokens.div_ceil(KEYS);
            let padded = panels * KEYS;
            let words = padded / <$element>::PER_WORD;
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
                            $module::<ROWS, SCORE_LANES>(queries, keys, depth, scores, padded);
                        }
                    }
                }
                let mut totals = [0.0; QUERIES];
                for (row, total) in totals.iter_mut().enumerate().take(rows) {
                    let scores = &scores[row * padded..][..padded];
                    *total = $softmax(scores, tokens, scale, &mut weights[row * words..][..words]);
                }
                for panel in 0..value_panels {
                    let first_lane = panel * MOST_LANES;
                    let panel_lanes = MOST_LANES.min(lanes - first_lane);
                    let start = first_lane * words;
                    let values = values[start..][..panel_lanes * words].as_ptr();
                    let tile_rows = if panel_lanes == MOST_LANES { WIDE_ROWS } else { ROWS };
                    for tile in 0..rows.div_ceil(tile_rows) {
                        let first_row = tile * tile_rows;
                        let weights = weights[first_row * words..].as_ptr();
                        let width = panel_lanes * 16;
                        let place = sums.as_mut_ptr();
                        // SAFETY: every row of weights has `words` words, the panel its lines, `sums` room for the tile.
                        unsafe {
                            match panel_lanes {
                                1 => $module::<ROWS, 1>(weights, values, words, place, width),
                                2 => $module::<ROWS, 2>(weights, values, words, place, width),
                                3 => $module::<ROWS, 3>(weights, values, words, place, width),
                                4 => $module::<ROWS, 4>(weights, values, words, place, width),
                                _ => $module::<WIDE_ROWS, MOST_LANES>(weights, values, words, place, width),
                            }
                        }
                        for row in first_row..rows.min(first_row + tile_rows) {
                            let column = first_lane * 16;
                            let count = width.min(head - column);
                            let start = job.head.start(1, 0, first + row) + column;
                            // SAFETY: this query's results of this head are this task's own.
                            let results = unsafe { job.result.slice(start, count) };
                            let factor = 1.0 / totals[row];
                            for (result, &sum) in results.iter_mut().zip(&sums[(row - first_row) * width..]) {
                                result.write(<$element>::from_f32(f32::from_bits(sum) * factor));
                            }
                        }
                    }
                }
                first += rows;
            }
        }
    };
}

attend!(attend_f32, "avx512f,avx512bw,avx512dq,avx512vl", f32, softmax::fp32, tile_f32, AVX512);
attend!(attend_bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", Bf16, softmax::bf16, tile_bf16, AVX512);
attend!(attend_on_tiles, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", Bf16, softmax::bf16, tile_amx, AMX);

/// With the registers of AMX for as long as it takes.
///
/// # Safety
/// As [`Attend::attend`], and the CPU has AMX.
unsafe fn attend_amx(job: &Job<'_, Bf16>, scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe {
        let _tiles = Tiles::of_rows(amx::ROWS);
        attend_on_tiles(job, scratch);
    }
}

macro_rules! tile {
    ($name:ident, $features:literal, $words:ident) => {
        /// Sums of `ROWS` rows by one panel; rows of `depth` words follow one another.
        ///
        /// # Safety
        /// As of [`avx512::tile`]'s.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn $name<const ROWS: usize, const LANES: usize>(
            rows: *const u32,
            panel: *const Line,
            depth: usize,
            sums: *mut u32,
            stride: usize,
        ) {
            use avx512::tile::$words::tile;
            let starts = std::array::from_fn(|row| rows.wrapping_add(row * depth));
            // SAFETY: the caller's promise.
            unsafe { tile::<ROWS, LANES>(starts, panel, depth, sums, stride) }
        }
    };
}

tile!(tile_f32, "avx512f,avx512bw,avx512dq,avx512vl", fp32);
tile!(tile_bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", bf16);

/// The same with AMX.
///
/// # Safety
/// As [`amx::bf16::strip`].
#[inline]
unsafe fn tile_amx<const ROWS: usize, const LANES: usize>(
    rows: *const u32,
    panel: *const Line,
    depth: usize,
    sums: *mut u32,
    stride: usize,
) {
    const { assert!(ROWS == amx::ROWS) };
    let rows = amx::Rows { start: rows, stride: depth, count: ROWS };
    // SAFETY: the caller's promise.
    unsafe { amx::bf16::strip::<LANES>(rows, panel, depth, sums, stride) }
}

/// Keys as columns: word by word, a panel's keys beside each other. Keys past the last, and words past a key's, are zero.
#[inline(always)]
fn pack_keys<E: Attend>(job: &Job<'_, E>, lines: &mut [Line], depth: usize) {
    for (panel, lines) in lines.chunks_exact_mut(depth * SCORE_LANES).enumerate() {
        for column in 0..KEYS {
            let token = panel * KEYS + column;
            let (lane, place) = (column / 16, column % 16);
            if token < job.head.shape.tokens {
                let words = job.row(1, token).chunks_exact(E::PER_WORD);
                let (own, past) = lines.split_at_mut(words.len() * SCORE_LANES);
                for (word, line) in words.zip(own.chunks_exact_mut(SCORE_LANES)) {
                    line[lane].0[place] = E::word(word.iter().copied());
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
fn pack_values<E: Attend>(job: &Job<'_, E>, lines: &mut [Line], lanes: usize, words: usize) {
    let Shape { tokens, head, .. } = job.head.shape;
    let zero = E::from_f32(0.0);
    for word in 0..words {
        for lane in 0..lanes {
            let (panel, within) = (lane / MOST_LANES, lane % MOST_LANES);
            let panel_lanes = MOST_LANES.min(lanes - panel * MOST_LANES);
            let line = &mut lines[panel * MOST_LANES * words + word * panel_lanes + within];
            let columns = lane * 16..head.min(lane * 16 + 16);
            let mut parts = [[zero; 16]; 2];
            for (offset, part) in parts.iter_mut().enumerate().take(E::PER_WORD) {
                let token = word * E::PER_WORD + offset;
                if token < tokens {
                    part[..columns.len()].copy_from_slice(&job.row(2, token)[columns.clone()]);
                }
            }
            let [first, second] = parts;
            for (place, (first, second)) in line.0.iter_mut().zip(first.into_iter().zip(second)) {
                *place = E::word([first, second].into_iter());
            }
        }
    }
}

/// Queries as words, zero past a query's; queries past the last repeat whatever was there, and their results are dropped.
#[inline(always)]
fn copy_queries<E: Attend>(job: &Job<'_, E>, first: usize, rows: usize, queries: &mut [u32], depth: usize) {
    for (row, words) in queries.chunks_exact_mut(depth).enumerate().take(rows) {
        let elements = job.row(0, first + row).chunks_exact(E::PER_WORD);
        words[elements.len()..].fill(0);
        for (word, elements) in words.iter_mut().zip(elements) {
            *word = E::word(elements.iter().copied());
        }
    }
}
