//! Registers whose words are single values of fp32, whatever the tensors' kind: six rows by sixteen columns, with AVX-512 eight by 32.

/// Their type, in a module with the imports that it names and the methods of [`Registers`](super::Registers) in `functions`; they are there where
/// [`Cpu`](crate::Cpu) says `$set`, and `$queries` pass together.
macro_rules! singles {
    ($(#[$doc:meta])* $name:ident, $set:ident, $queries:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name<E>(PhantomData<E>);

        impl<E: Element> $name<E> {
            /// Where the CPU has them.
            pub(crate) fn detect() -> Option<Self> {
                Cpu::detect().$set.then_some(Self(PhantomData))
            }
        }

        impl<E: Element> Registers for $name<E> {
            type Element = E;
            const PER_WORD: usize = 1;
            const ROWS: usize = functions::ROWS;
            const COLUMNS: usize = functions::COLUMNS;
            const QUERIES: usize = $queries;

            by_functions! {
                functions::lay_side_by_side(layout: Layout<Self>, rows: &[u32], place: &mut [u32]);
                functions::turn(layout: Layout<Self>, rows: &[u32], lines: &mut [u32]);
                functions::split_by_tiles(layout: Layout<Self>, rows: &[u32], place: &mut [u32], apart: usize);
                functions::split_by_lanes(layout: Layout<Self>, rows: &[u32], place: &mut [u32]);
                functions::multiply(tile: &[u32], lane: &[u32], depth: usize, sums: &mut [u32], goes_on: bool);
                functions::multiply_rows(rows: &[u32], lane: &[u32], depth: usize, sums: (&mut [u32], usize), goes_on: bool);
                functions::weigh(scores: &mut [u32], keys: usize, factor: f32, weightings: &mut [Weighting]);
                functions::pull_back_tile(scores: &[u32], of_weights: &[u32], of_rows: OfRows<'_>, place: OfTile<'_>);
                functions::turn_back(layout: Layout<Self>, lines: &[u32], rows: &mut [f32]);
            }
        }
    };
}
pub(super) use singles;
