use std::sync::OnceLock;

use crate::gemm::Words;

/// Vector instructions of the running CPU that this crate has kernels for, and may use.
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
    /// NEON, where nothing else multiplies more in a cycle: Apple's products go through units that this crate does not know, and SVE of more than
    /// 256 bits is wider. (Of 256 bits, Neoverse V1 has half as many pipes.)
    pub neon: bool,
    /// Arm's matrix instructions for bf16, summed in fp32.
    pub neon_bf16: bool,
    /// Those for unsigned by signed int8, summed in int32.
    pub neon_i8mm: bool,
    /// Products of four int8, signed both, summed in int32.
    pub neon_dotprod: bool,
    /// Whether libtorch's own bf16 kernels have hardware to run on: AVX-512 BF16, AMX, or Arm's bf16 matrix instructions.
    pub bf16: bool,
}

impl Cpu {
    /// Looks once; the answer is the same for the whole run. Looking also asks the system for AMX's registers.
    ///
    /// With `DIT_NO_AMX` in the environment, not empty and not 0, AMX is left alone, and with `DIT_NO_AVX512` both that and AVX-512: to
    /// compare, or should they ever compute wrongly; `DIT_NO_NEON` does the same for an Arm CPU. libtorch's own kernels know nothing of it, and [`bf16`](Self::bf16) is of them.
    pub fn detect() -> Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        *CPU.get_or_init(Self::look)
    }

    #[cfg(target_arch = "x86_64")]
    fn look() -> Self {
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let (amx, bf16) = (avx512 && amx(), avx512 && is_x86_feature_detected!("avx512bf16"));
        let use_avx512 = avx512 && !refused("DIT_NO_AVX512");
        Self {
            avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            avx512: use_avx512,
            avx512_bf16: use_avx512 && bf16,
            avx512_vnni: use_avx512 && is_x86_feature_detected!("avx512vnni"),
            amx: use_avx512 && amx && !refused("DIT_NO_AMX"),
            bf16: bf16 || amx,
            ..Self::NONE
        }
    }

    /// A CPU without any.
    const NONE: Self = Self {
        avx2: false,
        avx512: false,
        avx512_bf16: false,
        avx512_vnni: false,
        amx: false,
        neon: false,
        neon_bf16: false,
        neon_i8mm: false,
        neon_dotprod: false,
        bf16: false,
    };

    /// Whether this crate computes in bf16 at least as fast as in fp32.
    pub fn has_bf16_kernels(self) -> bool {
        Words::Bf16.supported(self)
    }

    #[cfg(target_arch = "aarch64")]
    fn look() -> Self {
        let neon = !cfg!(target_vendor = "apple") && sve_bytes() <= 32 && !refused("DIT_NO_NEON");
        let bf16 = std::arch::is_aarch64_feature_detected!("bf16");
        Self {
            neon,
            neon_bf16: neon && bf16,
            neon_i8mm: neon && std::arch::is_aarch64_feature_detected!("i8mm"),
            neon_dotprod: neon && std::arch::is_aarch64_feature_detected!("dotprod"),
            bf16,
            ..Self::NONE
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn look() -> Self {
        Self::NONE
    }
}

/// Bytes of SVE's registers, as the system lets this process use them; 0 where there is none.
#[cfg(target_arch = "aarch64")]
fn sve_bytes() -> usize {
    #[cfg(target_os = "linux")]
    {
        // <linux/prctl.h>
        const PR_SVE_GET_VL: libc::c_int = 51;
        const PR_SVE_VL_LEN_MASK: libc::c_int = 0xffff;
        // SAFETY: the call reads a number that belongs to this thread.
        let length = unsafe { libc::prctl(PR_SVE_GET_VL) };
        if length > 0 { (length & PR_SVE_VL_LEN_MASK) as usize } else { 0 }
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// AMX-BF16, AMX-TILE and AMX-INT8: CPUID leaf 7, EDX bits 22, 24 and 25.
#[cfg(target_arch = "x86_64")]
fn amx() -> bool {
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    if std::arch::x86_64::__cpuid(0).eax < 7 {
        return false;
    }
    std::arch::x86_64::__cpuid_count(7, 0).edx & BITS == BITS && crate::amx::request()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn refused(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../tests/support/again.rs"]
mod again;

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_left_alone_is_not_there() {
        let cpu = Cpu::detect();
        assert!(!(refused("DIT_NO_AMX") && cpu.amx), "{cpu:?}");
        assert!(
            !(refused("DIT_NO_AVX512") && (cpu.avx512 || cpu.avx512_bf16 || cpu.avx512_vnni || cpu.amx)),
            "{cpu:?}"
        );
        assert!(
            !(refused("DIT_NO_NEON") && (cpu.neon || cpu.neon_bf16 || cpu.neon_i8mm || cpu.neon_dotprod)),
            "{cpu:?}"
        );
    }

    /// The kernels that wider ones take the place of, by running all of this crate's unit tests again without those.
    #[test]
    fn without_wider_instructions_too() {
        let cpu = Cpu::detect();
        for (variable, there) in [("DIT_NO_AMX", cpu.amx), ("DIT_NO_AVX512", cpu.avx512), ("DIT_NO_NEON", cpu.neon)] {
            if !there {
                eprintln!("SKIPPED: nothing for {variable} to do without, or this is the run without");
                continue;
            }
            let mut again = again::this_program();
            let output = again.args(["--skip", "without_wider_instructions_too"]).env(variable, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && said.contains("what_is_to_be_left_alone_is_not_there ... ok"),
                "{variable}: {said}"
            );
        }
    }
}
