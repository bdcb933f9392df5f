use super::{
    super::{COPIED_ROWS_AT_ONCE, Epilogue, Kernel, Left, Output, Panels, Place, WIDTH, Words, epilogue::Sums},
    LANES, Multiply,
};
use crate::{cpu::Cpu, neon::block};

/// What multiplies by the instructions of a kernel of this architecture.
pub(super) fn of(kernel: Kernel) -> Multiply {
    match kernel {
        Kernel::Neon(Words::F32) => neon_f32,
        Kernel::Neon(Words::Bf16) => neon_bf16,
        Kernel::Neon(Words::Int8) if Cpu::detect().neon_i8mm => int8_matrices,
        Kernel::Neon(Words::Int8) => int8_by_lanes,
        Kernel::Avx2(_) | Kernel::Avx512(_) | Kernel::Avx512Widened | Kernel::AmxBf16 | Kernel::AmxInt8 => {
            unreachable!("a kernel of another architecture")
        }
    }
}

multiply_copied!(neon_f32, neon, "neon", block::fp32::multiply, 0);
multiply_copied!(neon_bf16, neon, "neon", block::bf16::multiply, 0);
multiply_copied!(int8_matrices, neon, "neon", block::int8_matrices::multiply, 0);
multiply_copied!(int8_by_lanes, neon, "neon", block::int8_by_lanes::multiply, 128);
