//! One body, compiled for several instruction sets, of which the running CPU's best is called.
//!
//! The bodies are plain loops that the compiler vectorises: with AVX-512 or AVX2 on x86-64, with NEON on Arm (where it is part of
//! every CPU), and with whatever there is elsewhere. They use no fused multiply-adds, so all compute the same bits.

/// Declares a function whose body is compiled three times.
macro_rules! multiversion {
    (
        $(#[$doc:meta])*
        $visibility:vis fn $name:ident $(<$($generic:ident: $bound:path),+>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?
        $body:block
    ) => {
        $(#[$doc])*
        $visibility fn $name $(<$($generic: $bound),+>)? ($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn portable $(<$($generic: $bound),+>)? ($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512 $(<$($generic: $bound),+>)? ($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }

                #[target_feature(enable = "avx2")]
                fn avx2 $(<$($generic: $bound),+>)? ($($argument: $type),*) $(-> $result)? {
                    portable($($argument),*)
                }

                let cpu = $crate::cpu::Cpu::detect();
                if cpu.avx512 {
                    // SAFETY: the CPU has these instructions.
                    return unsafe { avx512($($argument),*) };
                }
                if cpu.avx2 {
                    // SAFETY: the CPU has these instructions.
                    return unsafe { avx2($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    };
}

pub(crate) use multiversion;
