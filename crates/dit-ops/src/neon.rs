//! NEON, which every 64-bit Arm CPU has: thirty-two registers of four numbers, four of which stand for one of AVX-512's.

/// Declares functions of registers alone.
macro_rules! functions {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)+) => {
        $(
            $(#[$doc])*
            #[target_feature(enable = "neon")]
            #[inline]
            pub(crate) fn $name($($argument: $type),*) -> $result $body
        )+
    };
}

pub(crate) mod block;
pub(crate) mod vector;
