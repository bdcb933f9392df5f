//! AVX2 with FMA: sixteen registers of eight numbers, two of which stand for one of AVX-512's.

pub(crate) mod block;
pub(crate) mod tile;
pub(crate) mod vector;
