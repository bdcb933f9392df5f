//! AVX-512: thirty-two registers of sixteen numbers.

pub(crate) mod tile;
pub(crate) mod vector;
pub(crate) mod widened;
