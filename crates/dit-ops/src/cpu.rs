use std::sync::OnceLock;

/// Vector instructions of the running CPU that this crate has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// AVX2 and FMA.
    pub avx2: bool,
    /// AVX-512 F, BW, DQ and VL.
    pub avx512: bool,
    /// AVX-512 BF16: products of bf16 pairs, summed in fp32.
    pub avx512_bf16: bool,
    /// AVX-512 VNNI: products of int8 quadruples, summed in int32.
    pub avx512_vnni: bool,
    /// AMX: products of whole tiles of bf16 and int8 (Intel since Sapphire Rapids), where the system lets this process use them.
    pub amx: bool,
    /// Whether libtorch's own bf16 kernels have hardware to run on: AVX-512 BF16, AMX, or Arm's bf16 matrix instructions.
    pub bf16: bool,
}

impl Cpu {
    /// Looks once; the answer is the same for the whole run. Looking also asks the system for AMX's registers.
    ///
    /// With `DIT_NO_AMX` in the environment, not empty and not 0, there is no AMX, and with `DIT_NO_AVX512` neither that nor any of
    /// AVX-512: to compare, or should they ever compute wrongly.
    pub fn detect() -> Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        *CPU.get_or_init(Self::look)
    }

    #[cfg(target_arch = "x86_64")]
    fn look() -> Self {
        let avx512 = !refused("DIT_NO_AVX512")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let avx512_bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
        let amx = avx512 && amx();
        Self {
            avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            avx512,
            avx512_bf16,
            avx512_vnni: avx512 && is_x86_feature_detected!("avx512vnni"),
            amx,
            bf16: avx512_bf16 || amx,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn look() -> Self {
        let bf16 = std::arch::is_aarch64_feature_detected!("bf16");
        Self { avx2: false, avx512: false, avx512_bf16: false, avx512_vnni: false, amx: false, bf16 }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn look() -> Self {
        Self { avx2: false, avx512: false, avx512_bf16: false, avx512_vnni: false, amx: false, bf16: false }
    }
}

/// AMX-BF16, AMX-TILE and AMX-INT8: CPUID leaf 7, EDX bits 22, 24 and 25.
#[cfg(target_arch = "x86_64")]
fn amx() -> bool {
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    if std::arch::x86_64::__cpuid(0).eax < 7 {
        return false;
    }
    std::arch::x86_64::__cpuid_count(7, 0).edx & BITS == BITS && !refused("DIT_NO_AMX") && crate::amx::request()
}

#[cfg(target_arch = "x86_64")]
fn refused(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}
