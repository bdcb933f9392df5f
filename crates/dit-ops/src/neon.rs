//! NEON, which every 64-bit Arm CPU has: thirty-two registers of four numbers, four of which stand for one of AVX-512's.

pub(crate) mod block;
pub(crate) mod vector;
