use std::fmt;

use dit_config::Process;
use dit_diffusion::Spacing;
use dit_model::{Cpu, Kernels};
use dit_ops::gpu_multiplies_bf16;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::{CfgChannels, Guidance, Interpolation, Start};

/// Which solver walks the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SamplerKind {
    /// Ancestral sampling (Ho et al. 2020, algorithm 2).
    Ddpm,
    /// Implicit sampling (Song et al. 2021, equation 12).
    Ddim {
        /// 0 is deterministic, 1 as noisy as DDPM.
        eta: f64,
    },
    /// DPM-Solver++ 2M (Lu et al. 2022).
    #[serde(rename = "dpmpp-2m")]
    DpmPlusPlus2M,
    /// DPM-Solver++ 3M, as published.
    #[serde(rename = "dpmpp-3m")]
    DpmPlusPlus3M,
    /// SDE-DPM-Solver++ 2M: adds noise.
    #[serde(rename = "dpmpp-2m-sde")]
    DpmPlusPlus2MSde,
    /// UniPC of order 2, B₂(h) (Zhao et al. 2023).
    #[serde(rename = "unipc")]
    UniPc,
    /// Heun's method on the probability flow (Karras et al. 2022): two network calls a step.
    Heun,
    /// Euler-ancestral: adds noise.
    EulerAncestral,
}

impl SamplerKind {
    /// Steps for pictures of full quality: the original's 250 for its own samplers, twenty of equal log-SNR for the fast ones.
    pub fn default_steps(self) -> Spacing {
        match self {
            Self::Ddpm | Self::Ddim { .. } | Self::EulerAncestral => Spacing::even(250),
            Self::DpmPlusPlus2M | Self::DpmPlusPlus3M | Self::DpmPlusPlus2MSde | Self::UniPc | Self::Heun => {
                Spacing::UniformLambda(20)
            }
        }
    }

    /// [`default_steps`](Self::default_steps), or all where a process has fewer.
    pub fn default_steps_of(self, process: &Process) -> Spacing {
        match self.default_steps() {
            Spacing::UniformLambda(count) if count > process.steps => Spacing::All,
            Spacing::Sections(counts) if counts.iter().sum::<usize>() > process.steps => Spacing::All,
            steps => steps,
        }
    }
}

impl SamplerKind {
    /// Whether its steps add noise.
    pub fn is_stochastic(self) -> bool {
        match self {
            Self::Ddpm | Self::DpmPlusPlus2MSde | Self::EulerAncestral => true,
            Self::Ddim { eta } => eta > 0.0,
            Self::DpmPlusPlus2M | Self::DpmPlusPlus3M | Self::UniPc | Self::Heun => false,
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ddpm => f.write_str("ddpm"),
            Self::Ddim { eta: 0.0 } => f.write_str("ddim"),
            Self::Ddim { eta } => write!(f, "ddim (eta {eta})"),
            Self::DpmPlusPlus2M => f.write_str("dpmpp-2m"),
            Self::DpmPlusPlus3M => f.write_str("dpmpp-3m"),
            Self::DpmPlusPlus2MSde => f.write_str("dpmpp-2m-sde"),
            Self::UniPc => f.write_str("unipc"),
            Self::Heun => f.write_str("heun"),
            Self::EulerAncestral => f.write_str("euler-ancestral"),
        }
    }
}

/// Arithmetic of the networks. The latents, the schedule and the guidance are fp32 in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point: the reference. On CUDA, libtorch begins with TF32 in convolutions, and a pipeline turns that off when
    /// it first [samples](crate::Pipeline::sample): whoever encodes or decodes before that, or computes otherwise, asks for
    /// [`dit_ops::allow_tf32`] itself, as `dit-cli` does whenever it opens a device.
    Fp32,
    /// 32-bit floating point, multiplied as TF32 (10 bits of mantissa, sums in fp32) by CUDA; other devices compute fp32.
    Tf32,
    /// bfloat16 weights and activations.
    Bf16,
    /// bfloat16, but the transformer's large Linears in 8-bit integers. CPUs only.
    Int8,
}

impl Precision {
    /// libtorch's name for it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 | Self::Tf32 => Kind::Float,
            Self::Bf16 | Self::Int8 => Kind::BFloat16,
        }
    }

    /// The kernels that compute it.
    pub fn kernels(self) -> Kernels {
        match self {
            Self::Fp32 | Self::Tf32 | Self::Bf16 => Kernels::Fused,
            Self::Int8 => Kernels::Int8,
        }
    }

    /// The fastest that `device` computes faithfully: bf16 on a GPU (since Ampere) or CPU that multiplies it faster than fp32 (AMX, AMD's
    /// AVX-512 BF16, Arm's bf16 instructions; not Intel's AVX-512 BF16, [which is slow](Cpu::avx512_bf16_products)); else fp32. Never
    /// int8, whose pictures differ a little from fp32's. (It knows nothing of [instructions that are to be left alone](Cpu::detect).)
    pub fn auto(device: Device) -> Self {
        let has_bf16 = match device {
            Device::Cuda(number) => gpu_multiplies_bf16(number).unwrap_or(true),
            _ => Cpu::detect().bf16,
        };
        if has_bf16 { Self::Bf16 } else { Self::Fp32 }
    }

    /// Whether `device` has instructions for it. (bf16 is computed everywhere; without AVX2, NEON or instructions for it, slowly.)
    pub fn is_supported(self, device: Device) -> bool {
        match self {
            Self::Fp32 | Self::Bf16 => true,
            Self::Tf32 => device.is_cuda(),
            Self::Int8 => device == Device::Cpu && Kernels::Int8.is_supported(),
        }
    }

    /// Bytes of one activation, and of one weight at most.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Fp32 | Self::Tf32 => 4,
            Self::Bf16 | Self::Int8 => 2,
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// What determines a picture besides the weights, its class and its index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The solver.
    pub sampler: SamplerKind,
    /// Which timesteps it visits; stored as it is typed: `250`, `10,15,20`, `ddim50`, `all`.
    #[serde(with = "spacing_as_text")]
    pub steps: Spacing,
    /// Classifier-free guidance scale; 1 is none.
    pub cfg_scale: f64,
    /// Channels that are guided.
    pub cfg_channels: CfgChannels,
    /// Seed of all noise.
    pub seed: u64,
    /// Arithmetic of the networks.
    pub precision: Precision,
    /// The diffusion process that the checkpoint was trained on; none stands for the original's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// What guides beside the plain scale.
    #[serde(default, skip_serializing_if = "Guidance::is_default")]
    pub guidance: Guidance,
    /// Where walks start.
    #[serde(default, skip_serializing_if = "Start::is_noise")]
    pub start: Start,
    /// Whether the run's pictures lead from one to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolate: Option<Interpolation>,
    /// Reuse of block outputs between neighbouring steps: the relative change of the first block's output below which the other
    /// blocks are not computed anew; 0 is off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache: f64,
}

mod spacing_as_text {
    use dit_diffusion::Spacing;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(spacing: &Spacing, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(spacing)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spacing, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Default for Settings {
    /// What the original's script does: 250 steps of DDPM, guidance 4 on three channels, seed 0, fp32.
    fn default() -> Self {
        Self {
            sampler: SamplerKind::Ddpm,
            steps: SamplerKind::Ddpm.default_steps(),
            cfg_scale: 4.0,
            cfg_channels: CfgChannels::Three,
            seed: 0,
            precision: Precision::Fp32,
            process: None,
            guidance: Guidance::default(),
            start: Start::Noise,
            interpolate: None,
            cache: 0.0,
        }
    }
}
