use dit_ops::{Cpu, libtorch_version};
use serde::{Deserialize, Serialize};
use tch::Device;

/// What decides the last bits of results, beside the number of threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Vector instructions that kernels differ by.
    pub instructions: String,
    /// libtorch's version.
    pub libtorch: String,
}

impl Machine {
    /// The one at hand.
    pub(crate) fn of(device: Device) -> Self {
        let Cpu {
            avx2,
            avx512,
            avx512_bf16,
            avx512_bf16_products,
            avx512_vnni,
            amx,
            neon,
            neon_bf16,
            neon_i8mm,
            neon_dotprod,
            bf16,
        } = Cpu::detect();
        let known = [
            ("avx2", avx2),
            ("avx512", avx512),
            ("avx512-bf16", avx512_bf16),
            ("avx512-bf16-slow", avx512_bf16 && !avx512_bf16_products),
            ("avx512-vnni", avx512_vnni),
            ("amx", amx),
            ("neon", neon),
            ("neon-bf16", neon_bf16),
            ("neon-i8mm", neon_i8mm),
            ("neon-dotprod", neon_dotprod),
            ("bf16", bf16),
        ];
        let there: Vec<&str> = known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
        Self {
            device: match device {
                Device::Cuda(number) => format!("cuda:{number}"),
                _ => "cpu".to_owned(),
            },
            instructions: there.join(" "),
            libtorch: libtorch_version().unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}
