use clap::ValueEnum;

/// How classes are chosen from the list.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LabelsArg {
    /// Every listed class as often
    Balanced,
    /// Drawn uniformly from the list
    Random,
}

/// Samplers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplerArg {
    /// Ancestral sampling (Ho et al. 2020)
    Ddpm,
    /// Implicit sampling (Song et al. 2021)
    Ddim,
    /// Euler's method on the probability flow: ddim without noise
    Euler,
    /// DPM-Solver++ 2M: good pictures in 20 steps
    #[value(name = "dpmpp-2m")]
    DpmPlusPlus2M,
    /// DPM-Solver++ 3M
    #[value(name = "dpmpp-3m")]
    DpmPlusPlus3M,
    /// SDE-DPM-Solver++ 2M: adds noise
    #[value(name = "dpmpp-2m-sde")]
    DpmPlusPlus2MSde,
    /// UniPC of order 2
    #[value(name = "unipc")]
    UniPc,
    /// Heun's method: two passes a step
    Heun,
    /// Euler-ancestral: adds noise
    EulerAncestral,
}

/// Arithmetic of sampling.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplePrecisionArg {
    /// bf16 where the machine multiplies it faster than fp32, else fp32
    Auto,
    /// The reference
    Fp32,
    /// fp32 multiplied as TF32, 10 bits of mantissa: the original's choice on a GPU; CUDA only
    Tf32,
    /// bfloat16
    Bf16,
    /// The transformer's large Linears in 8 bits, all else bf16; needs AVX2, AVX-512 VNNI or Arm's dotprod
    Int8,
}
