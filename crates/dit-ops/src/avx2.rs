//! AVX2 with FMA: sixteen registers of eight numbers, two of which stand for one of AVX-512's.

/// Declares functions of registers alone.
macro_rules! functions {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)+) => {
        $(
            $(#[$doc])*
            #[target_feature(enable = "avx2,fma")]
            #[inline]
            pub(crate) fn $name($($argument: $type),*) -> $result $body
        )+
    };
}

pub(crate) mod block;
pub(crate) mod tile;
pub(crate) mod vector;
