//! What all sets of registers do alike with lines of numbers.

/// The functions of a module with `COLUMNS`, `ROWS`, `SIXTEENS` (times sixteen numbers are a line), `exp2`, [`Layout`](super::Layout) and
/// [`Registers`](super::Registers), by the functions of `$set`'s vectors and its transposition.
macro_rules! lines {
    ($set:ident, $transpose:ident, $features:literal) => {
        use std::f32::consts::LOG2_E;

        use crate::{
            attention::flash::assert_aligned,
            gemm::Line,
            transpose::$transpose,
            $set::vector::{self as v, Floats},
        };

        /// Sixteen of a line's numbers, bits of fp32.
        #[target_feature(enable = $features)]
        #[inline]
        fn load(line: &[u32; COLUMNS], sixteen: usize) -> Floats {
            // SAFETY: sixteen words are a register.
            unsafe { v::load(line.as_chunks::<16>().0[sixteen].as_ptr().cast()) }
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store(line: &mut [u32; COLUMNS], sixteen: usize, values: Floats) {
            // SAFETY: sixteen words are a register.
            unsafe { v::store(line.as_chunks_mut::<16>().0[sixteen].as_mut_ptr().cast(), values) };
        }

        /// exp(scale·(score − greatest)), `factor` being scale·log₂e: the same bits in the forward and in the backward pass.
        #[target_feature(enable = $features)]
        #[inline]
        fn exponentials(scores: Floats, greatest: Floats, factor: Floats) -> Floats {
            exp2(v::mul(v::sub(scores, greatest), factor))
        }

        /// Of each column.
        #[target_feature(enable = $features)]
        #[inline]
        fn greatest_of(lines: &[[u32; COLUMNS]]) -> [Floats; SIXTEENS] {
            let mut greatest = [v::splat(f32::NEG_INFINITY); SIXTEENS];
            for line in lines {
                for (sixteen, greatest) in greatest.iter_mut().enumerate() {
                    *greatest = v::max(*greatest, load(line, sixteen));
                }
            }
            greatest
        }

        /// Each column's greatest score, and 1 / its sum.
        #[target_feature(enable = $features)]
        #[inline]
        fn put_weightings(greatest: [Floats; SIXTEENS], sums: [Floats; SIXTEENS], weightings: &mut [Weighting]) {
            let (mut of_columns, mut factors) = ([0; COLUMNS], [0; COLUMNS]);
            for sixteen in 0..SIXTEENS {
                store(&mut of_columns, sixteen, greatest[sixteen]);
                store(&mut factors, sixteen, v::div(v::splat(1.0), sums[sixteen]));
            }
            for (weighting, (greatest, factor)) in weightings.iter_mut().zip(of_columns.into_iter().zip(factors)) {
                *weighting = Weighting { greatest: f32::from_bits(greatest), factor: f32::from_bits(factor) };
            }
        }

        /// [`Registers::weigh`](super::Registers::weigh) where words are single numbers.
        #[target_feature(enable = $features)]
        pub(in crate::attention::flash) fn weigh_singly(
            scores: &mut [u32],
            keys: usize,
            factor: f32,
            weightings: &mut [Weighting],
        ) {
            let lines = &mut scores.as_chunks_mut::<COLUMNS>().0[..keys];
            let greatest = greatest_of(lines);
            let mut sums = [v::zero(); SIXTEENS];
            for line in lines {
                for (sixteen, sum) in sums.iter_mut().enumerate() {
                    let weights = exponentials(load(line, sixteen), greatest[sixteen], v::splat(factor));
                    *sum = v::add(*sum, weights);
                    store(line, sixteen, weights);
                }
            }
            put_weightings(greatest, sums, weightings);
        }

        /// Sixteen of a row's weights, and the gradients of their scores. (The scores of keys that are not there are 0, which may be far above
        /// all others: what comes of them is nonsense, and dropped.)
        #[target_feature(enable = $features)]
        #[inline]
        fn pull_back(scores: Floats, of_weights: Floats, of_rows: &OfRows<'_>, row: usize) -> (Floats, Floats) {
            let OfRows { weightings, deltas, scale, .. } = *of_rows;
            let Weighting { greatest, factor } = weightings[row];
            let exponentials = exponentials(scores, v::splat(greatest), v::splat(scale * LOG2_E));
            let weights = v::mul(exponentials, v::splat(factor));
            let of_scores = v::mul(v::mul(weights, v::splat(scale)), v::sub(of_weights, v::splat(deltas[row])));
            (weights, of_scores)
        }

        /// [`Registers::pull_back_tile`](super::Registers::pull_back_tile) where words are single numbers.
        #[target_feature(enable = $features)]
        pub(in crate::attention::flash) fn pull_back_tile_singly(
            scores: &[u32],
            of_weights: &[u32],
            of_rows: OfRows<'_>,
            place: OfTile<'_>,
        ) {
            let [scores, of_weights] = [scores, of_weights].map(|words| &words.as_chunks::<COLUMNS>().0[..ROWS]);
            let OfTile { weights, of_scores, .. } = place;
            let [weights_at, of_scores_at] =
                [weights, of_scores].map(|words| &mut words.as_chunks_mut::<COLUMNS>().0[..ROWS]);
            for row in 0..ROWS {
                for sixteen in 0..SIXTEENS {
                    let (weights, of_scores) =
                        pull_back(load(&scores[row], sixteen), load(&of_weights[row], sixteen), &of_rows, row);
                    store(&mut weights_at[row], sixteen, weights);
                    store(&mut of_scores_at[row], sixteen, of_scores);
                }
            }
        }

        /// [`Registers::turn`](super::Registers::turn).
        #[target_feature(enable = $features)]
        pub(in crate::attention::flash) fn turn<R: Registers>(layout: Layout<R>, rows: &[u32], lines: &mut [u32]) {
            assert!(rows.len() >= layout.lane() && lines.len() >= layout.lane());
            assert_aligned(lines);
            for sixteen in 0..SIXTEENS {
                // SAFETY: each row has a multiple of 16 words, and there is a line for each, which begins at a cache line, as asserted.
                unsafe {
                    let rows = rows.as_ptr().add(16 * sixteen * layout.stride);
                    let lines = lines.as_mut_ptr().add(16 * sixteen).cast::<MaybeUninit<Line>>();
                    $transpose::<false>(rows, layout.stride, layout.words.next_multiple_of(16), lines, SIXTEENS);
                }
            }
        }

        /// [`Registers::turn_back`](super::Registers::turn_back).
        #[target_feature(enable = $features)]
        pub(in crate::attention::flash) fn turn_back<R: Registers>(layout: Layout<R>, lines: &[u32], rows: &mut [f32]) {
            assert!(lines.len() >= layout.turned() && rows.len() >= COLUMNS * layout.row());
            assert_aligned(rows);
            for first in (0..layout.head).step_by(16) {
                // SAFETY: there are sixteen lines from each multiple of sixteen values on, and a row for each column, whose sixteens begin
                // at cache lines.
                unsafe {
                    let place = rows.as_mut_ptr().add(first).cast::<MaybeUninit<Line>>();
                    let lines = lines.as_ptr().add(first * COLUMNS);
                    $transpose::<false>(lines, COLUMNS, COLUMNS, place, layout.row() / 16);
                }
            }
        }

        /// [`Registers::split_by_lanes`](super::Registers::split_by_lanes) where words are single numbers.
        #[target_feature(enable = $features)]
        pub(in crate::attention::flash) fn split_by_lanes_singly<R: Registers>(
            layout: Layout<R>,
            rows: &[u32],
            place: &mut [u32],
        ) {
            assert!(rows.len() >= layout.lane());
            for (row, values) in rows.chunks_exact(layout.stride).enumerate().take(COLUMNS) {
                for (group, values) in values.as_chunks::<COLUMNS>().0.iter().enumerate() {
                    place[group * layout.group() + row * COLUMNS..][..COLUMNS].copy_from_slice(values);
                }
            }
        }
    };
}
pub(super) use lines;

/// `multiply` and `multiply_rows` of [`Registers`](super::Registers) with so many values to a word, in a module with `COLUMNS`, `ROWS`, and an
/// `add_products` to do it.
macro_rules! products {
    ($features:literal, $per_word:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn multiply(tile: &[u32], lane: &[u32], depth: usize, sums: &mut [u32], goes_on: bool) {
            assert!(tile.len() >= ROWS * depth && lane.len() >= COLUMNS * depth && sums.len() >= ROWS * COLUMNS);
            assert_aligned(lane);
            let sums = (sums.as_mut_ptr(), COLUMNS);
            // SAFETY: as asserted.
            unsafe { add_products::<ROWS, 1>(tile.as_ptr(), lane.as_ptr(), depth, sums, goes_on) }
        }

        #[target_feature(enable = $features)]
        pub(super) fn multiply_rows(
            rows: &[u32],
            lane: &[u32],
            depth: usize,
            (sums, apart): (&mut [u32], usize),
            goes_on: bool,
        ) {
            const ROW: usize = COLUMNS / $per_word;
            assert!(depth <= ROW && rows.len() >= ROWS * ROW && lane.len() >= COLUMNS * depth);
            assert!(sums.len() >= (ROWS - 1) * apart + COLUMNS);
            assert_aligned(lane);
            let sums = (sums.as_mut_ptr(), apart);
            // SAFETY: as asserted.
            unsafe { add_products::<1, ROW>(rows.as_ptr(), lane.as_ptr(), depth, sums, goes_on) }
        }
    };
}
pub(super) use products;
