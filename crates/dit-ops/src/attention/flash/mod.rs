//! Attention whose weights never leave the caches: forward, and backward with the weights made anew, so that what is held grows with the
//! sequence and not with its square (Dao et al. 2022, "FlashAttention").
//!
//! What is multiplied lies as the inner loops want it: the rows of a tile side by side, the columns of a lane to a line. In the forward pass
//! scores are made turned, a line for each key, so that softmax is by lanes and the weights lie as the second product reads them; in the
//! backward pass, which knows what makes weights of scores, a line is a query's. What is done in registers is [`Registers`]', one for each
//! kind of instructions and tensors.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backward;
mod forward;
mod layout;
mod lines;
#[cfg(target_arch = "aarch64")]
mod neon;
mod singles;

use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Pairs};
pub(crate) use backward::{Given, pull_back};
pub(crate) use forward::self_attention;
use layout::{Layout, Part, gather};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
use tch::Tensor;

use super::{Shape, heads::Head};
use crate::{element::Element, simd::multiversion};

/// What makes a query's weights of its scores: exp(scale·(score − `greatest`)) · `factor`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weighting {
    greatest: f32,
    /// 1 / the sum of exponentials.
    factor: f32,
}

/// What the forward pass keeps for the backward pass, besides what it is given and gives.
pub(crate) struct Kept {
    /// (N·H·T).
    weightings: Vec<Weighting>,
    /// (N, T, H·head), what rounding took from the results: in fp32, nothing.
    remainders: Option<Tensor>,
}

/// What a tile's gradients of scores are made of.
#[derive(Clone, Copy)]
pub(crate) struct OfRows<'a> {
    /// One for each row.
    weightings: &'a [Weighting],
    /// δ, likewise.
    deltas: &'a [f32],
    /// What scores are multiplied by.
    scale: f32,
    /// Rows that are queries, and columns that are keys: where words are pairs.
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "NEON's words are single values"))]
    queries: usize,
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "NEON's words are single values"))]
    keys: usize,
}

/// Where a tile's weights and gradients of scores go.
pub(crate) struct OfTile<'a> {
    /// Right factors: a line for each word of rows.
    weights: &'a mut [u32],
    of_scores: &'a mut [u32],
    /// Gradients of scores as a left factor: a row's words after the other's. Not written where words are single values: they are
    /// `of_scores` then.
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "NEON's words are single values"))]
    of_scores_by_rows: &'a mut [u32],
}

/// What is done in the registers of a CPU, for tensors of one kind. Whoever has one is on a CPU that has the instructions.
///
/// A factor's *word* is a value in fp32, or a pair of bf16 that follow one another along the inner dimension. Sums are fp32.
///
/// # Panics
/// What lays out or multiplies, where slices are shorter than what is read or written, or words do not begin at a cache line: `lane`, what
/// is turned into `lines` or back into `rows`, and with AVX2 where rows are laid side by side.
pub(crate) trait Registers: Copy + Send + Sync {
    /// Of the tensors.
    type Element: Element;
    /// Values of a factor's word: 1, or 2.
    const PER_WORD: usize;
    /// Rows of a tile; an even number.
    const ROWS: usize;
    /// Columns of a lane; a multiple of 16, at most [`MOST_COLUMNS`].
    const COLUMNS: usize;
    /// Queries that pass together in the backward pass: a multiple of a tile's rows. What they and a lane of keys give each other stays in the
    /// first or second-level cache.
    const QUERIES: usize;

    /// A tile's gathered rows side by side: word w of row r at w·`ROWS` + r.
    fn lay_side_by_side(self, layout: Layout<Self>, rows: &[u32], place: &mut [u32]);

    /// A lane's gathered rows as the columns of lines, one for each word.
    fn turn(self, layout: Layout<Self>, rows: &[u32], lines: &mut [u32]);

    /// The values of a tile's gathered rows, as many at a time as a tile has rows: those of group g and the rows of word w go to
    /// g·`apart` + w·`ROWS`.
    fn split_by_tiles(self, layout: Layout<Self>, rows: &[u32], place: &mut [u32], apart: usize);

    /// The same of a lane's gathered rows, as many values as it has columns at a time: group g's lines follow group g − 1's.
    fn split_by_lanes(self, layout: Layout<Self>, rows: &[u32], place: &mut [u32]);

    /// The products of a tile and a lane of `depth` words are added to `ROWS` lines of sums if it `goes_on`, or become them (bits of fp32).
    fn multiply(self, tile: &[u32], lane: &[u32], depth: usize, sums: &mut [u32], goes_on: bool);

    /// The same where row r's words begin at r·`COLUMNS`/`PER_WORD`, and its sums lie `sums.1` words from the next one's.
    fn multiply_rows(self, rows: &[u32], lane: &[u32], depth: usize, sums: (&mut [u32], usize), goes_on: bool);

    /// Makes weights, but for the division by their sums, of scores: a line for each of `keys` keys, which become lines of words. Sets each
    /// column's [`Weighting`].
    fn weigh(self, scores: &mut [u32], keys: usize, factor: f32, weightings: &mut [Weighting]);

    /// A tile's weights P of its scores, and from their gradients dP the scores': scale · P ∘ (dP − δ).
    fn pull_back_tile(self, scores: &[u32], of_weights: &[u32], of_rows: OfRows<'_>, place: OfTile<'_>);

    /// Lines of sums, one for each value, as rows of values, [`Layout::row`] apart.
    fn turn_back(self, layout: Layout<Self>, lines: &[u32], rows: &mut [f32]);
}

/// Most columns of a lane.
const MOST_COLUMNS: usize = 32;

/// Implements the methods of [`Registers`] by the functions, with features, of the same names in the module `functions` beside.
macro_rules! by_functions {
    () => {
        by_functions! {
            lay_side_by_side(layout: Layout<Self>, rows: &[u32], place: &mut [u32]);
            turn(layout: Layout<Self>, rows: &[u32], lines: &mut [u32]);
            split_by_tiles(layout: Layout<Self>, rows: &[u32], place: &mut [u32], apart: usize);
            split_by_lanes(layout: Layout<Self>, rows: &[u32], place: &mut [u32]);
            multiply(tile: &[u32], lane: &[u32], depth: usize, sums: &mut [u32], goes_on: bool);
            multiply_rows(rows: &[u32], lane: &[u32], depth: usize, sums: (&mut [u32], usize), goes_on: bool);
            weigh(scores: &mut [u32], keys: usize, factor: f32, weightings: &mut [Weighting]);
            pull_back_tile(scores: &[u32], of_weights: &[u32], of_rows: OfRows<'_>, place: OfTile<'_>);
            turn_back(layout: Layout<Self>, lines: &[u32], rows: &mut [f32]);
        }
    };
    ($($name:ident($($argument:ident: $type:ty),*);)+) => {
        $(
            fn $name(self, $($argument: $type),*) {
                // SAFETY: whoever has `self` is on a CPU that has the features.
                unsafe { functions::$name($($argument),*) }
            }
        )+
    };
}
use by_functions;

multiversion! {
    /// Values times `factor` as elements.
    fn write<E: Element>(values: &[f32], factor: f32, place: &mut [MaybeUninit<E>]) {
        for (place, &value) in place.iter_mut().zip(values) {
            place.write(E::from_f32(value * factor));
        }
    }
}

multiversion! {
    /// What [`write`] rounds off, rounded.
    fn write_remainders<E: Element>(values: &[f32], factor: f32, place: &mut [MaybeUninit<E>]) {
        for (place, &value) in place.iter_mut().zip(values) {
            let exact = value * factor;
            place.write(E::from_f32(exact - E::from_f32(exact).to_f32()));
        }
    }
}

multiversion! {
    /// Σ a·b.
    fn dot<E: Element>(a: &[E], b: &[E]) -> f32 {
        let mut sums = [0.0_f32; 16];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
        for (a, b) in a.iter().zip(b) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += a.to_f32() * b.to_f32();
            }
        }
        for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
            *sum += a.to_f32() * b.to_f32();
        }
        // By halves: one after the other would wait for each.
        for half in [8, 4, 2, 1] {
            let (low, high) = sums.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                *low += *high;
            }
        }
        sums[0]
    }
}

/// Panics if the words do not begin at a cache line.
#[inline(always)]
fn assert_aligned<T>(words: &[T]) {
    assert!(words.as_ptr().addr().is_multiple_of(64), "words do not begin at a cache line");
}

#[cfg(test)]
mod tests;
