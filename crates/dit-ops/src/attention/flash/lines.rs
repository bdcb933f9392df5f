//! What both sets of registers do alike with lines of numbers.

/// The functions of a module with `COLUMNS`, `ROWS`, `SIXTEENS` (times sixteen numbers are a line), `exp2`, [`Layout`](super::Layout) and
/// [`Registers`](super::Registers), by the functions of `$set`'s vectors.
macro_rules! lines {
    ($set:ident, $features:literal) => {
        use std::f32::consts::LOG2_E;

        use crate::$set::vector::{self as v, Floats};

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
