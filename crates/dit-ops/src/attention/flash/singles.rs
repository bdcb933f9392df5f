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

            by_functions!();
        }
    };
}
pub(super) use singles;
