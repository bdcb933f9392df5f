use std::sync::OnceLock;

use crate::gemm::Words;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::refused;

/// Vector instructions of the running CPU that this crate has kernels for, and may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// AVX2 and FMA.
    pub avx2: bool,
    /// AVX-512 F, BW, DQ and VL.
    pub avx512: bool,
    /// AVX-512 BF16: rounding to bf16, and products of bf16 pairs, summed in fp32.
    pub avx512_bf16: bool,
    /// Whether such products take less time than those of fp32 that widened pairs would be: on AMD's since Zen 4, and on Cooper Lake. Intel's
    /// since Sapphire Rapids take five times as long for one as for a product of fp32, and have AMX for it; but the systems that
    /// guests run on may keep that from them.
    pub avx512_bf16_products: bool,
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
    /// Whether bf16 is multiplied in less time than fp32, by libtorch's kernels too: by AMX, AVX-512 BF16 where that is fast, or Arm's
    /// bf16 matrix instructions.
    pub bf16: bool,
}

impl Cpu {
    /// Looks once; the answer is the same for the whole run. Looking also asks the system for AMX's registers.
    ///
    /// With `DIT_NO_AMX` in the environment, not empty and not 0, AMX is left alone, with `DIT_NO_AVX512_BF16` that and AVX-512 BF16, and with
    /// `DIT_NO_AVX512` all of AVX-512, too: to
    /// compare, or should they ever compute wrongly; `DIT_NO_NEON` does the same for an Arm CPU. libtorch's own kernels know nothing of it, nor does [`bf16`](Self::bf16).
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
        let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
        // AMX's kernels round by AVX-512 BF16.
        let amx = bf16 && amx();
        let bf16_products = bf16 && !Model::look().multiplies_bf16_slowly();
        let use_avx512 = avx512 && !refused("DIT_NO_AVX512");
        let use_bf16 = use_avx512 && !refused("DIT_NO_AVX512_BF16");
        Self {
            avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            avx512: use_avx512,
            avx512_bf16: use_bf16 && bf16,
            avx512_bf16_products: use_bf16 && bf16_products,
            avx512_vnni: use_avx512 && is_x86_feature_detected!("avx512vnni"),
            amx: use_bf16 && amx && !refused("DIT_NO_AMX"),
            bf16: bf16_products || amx,
            ..Self::NONE
        }
    }

    /// A CPU without any.
    const NONE: Self = Self {
        avx2: false,
        avx512: false,
        avx512_bf16: false,
        avx512_bf16_products: false,
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

/// Which CPU it is, by its maker's numbers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
struct Model {
    intel: bool,
    family: u32,
    model: u32,
}

#[cfg(target_arch = "x86_64")]
impl Model {
    /// CPUID leaves 0 and 1.
    fn look() -> Self {
        let maker = std::arch::x86_64::__cpuid(0);
        let name = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
        Self::of(name.as_flattened() == b"GenuineIntel", std::arch::x86_64::__cpuid(1).eax)
    }

    /// From leaf 1's EAX.
    fn of(intel: bool, eax: u32) -> Self {
        let (family, model) = (eax >> 8 & 0xf, eax >> 4 & 0xf);
        Self {
            intel,
            family: if family == 0xf { family + (eax >> 20 & 0xff) } else { family },
            model: if matches!(family, 0x6 | 0xf) { model | eax >> 12 & 0xf0 } else { model },
        }
    }

    /// Whether AVX-512 BF16, where there is that, takes longer for products than fp32 does: measured on model 207 (Emerald Rapids), 1.0 · 10⁹
    /// of its products a second beside 5.4 · 10⁹ of fp32's, which are half as much each. Intel's others since Sapphire Rapids are taken to be alike.
    fn multiplies_bf16_slowly(self) -> bool {
        /// And Cascade Lake's, which has no such instructions.
        const COOPER_LAKE: u32 = 0x55;
        self.intel && !(self.family == 6 && self.model == COOPER_LAKE)
    }
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

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../tests/support/again.rs"]
mod again;

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn makers_numbers_tell_whose_bf16_is_slow() {
        // EAX of CPUID leaf 1: Emerald Rapids, Sapphire Rapids, Granite Rapids, Cooper Lake; then AMD's Zen 4 and Zen 5.
        let intel = [0x000c_06f2, 0x0008_06f8, 0x000a_06d1, 0x0005_065b].map(|eax| Model::of(true, eax));
        assert_eq!(intel.map(|cpu| (cpu.family, cpu.model)), [(6, 207), (6, 143), (6, 173), (6, 85)]);
        assert_eq!(intel.map(Model::multiplies_bf16_slowly), [true, true, true, false]);
        // One of a later family.
        assert!(Model::of(true, 0x0040_0f10).multiplies_bf16_slowly());
        let amd = [0x00a1_0f11, 0x00b0_0f21].map(|eax| Model::of(false, eax));
        assert_eq!(amd.map(|cpu| (cpu.family, cpu.model)), [(25, 17), (26, 2)]);
        assert_eq!(amd.map(Model::multiplies_bf16_slowly), [false, false]);
    }

    #[test]
    fn what_is_to_be_left_alone_is_not_there() {
        let cpu = Cpu::detect();
        assert!(!(refused("DIT_NO_AMX") && cpu.amx), "{cpu:?}");
        let bf16 = cpu.avx512_bf16 || cpu.avx512_bf16_products || cpu.amx;
        assert!(!(refused("DIT_NO_AVX512_BF16") && bf16), "{cpu:?}");
        assert!(!(refused("DIT_NO_AVX512") && (bf16 || cpu.avx512 || cpu.avx512_vnni)), "{cpu:?}");
        assert!(
            !(refused("DIT_NO_NEON") && (cpu.neon || cpu.neon_bf16 || cpu.neon_i8mm || cpu.neon_dotprod)),
            "{cpu:?}"
        );
    }

    /// The kernels that wider ones take the place of, by running all of this crate's unit tests again without those.
    #[test]
    fn without_wider_instructions_too() {
        let cpu = Cpu::detect();
        for (variable, there) in [
            ("DIT_NO_AMX", cpu.amx),
            ("DIT_NO_AVX512_BF16", cpu.avx512_bf16_products),
            ("DIT_NO_AVX512", cpu.avx512),
            ("DIT_NO_NEON", cpu.neon),
        ] {
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
