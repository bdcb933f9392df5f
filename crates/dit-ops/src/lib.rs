//! libtorch operators that tch does not bind, and fused kernels.
//!
//! - [`AdamW`]: an optimizer whose state can be saved, through libtorch's fused operator.
//! - [`Linear`]: a Linear that packs its weights for AVX2, AVX-512, AMX and NEON kernels of this crate (fp32, bf16, int8), or hands them to oneDNN.
//! - [`layer_norm_modulate`], [`add_gated`], [`self_attention`]: what lies between a transformer's Linears, in one pass each.
//! - [`Kernels`]: which of them a network computes with; [`Kernels::Differentiable`] is for training, with backward passes of our own.
//! - [`keep_freed_memory`]: no page is cleared twice. [`allow_tf32`], [`tf32_setting`], [`Tf32Scope`]: how CUDA multiplies fp32.
//! - [`links_cuda`], [`allow_cudnn_attention`]: what a program has of CUDA.
//! - [`observe_linears`]: what passes a network's Linears, for looking for what went wrong.
//! - [`refused`]: what the environment asks to do without.
//! - [`conv`]: convolutions of inference, with normalisation, doubling and skip connection on the way.
//!
//! Every fast path has the plain one beside it and falls back to it: on another device or kind, on a CPU without the
//! instructions, and where a gradient is wanted that it does not give. Nothing here reads files, prints, or holds state but the optimizer's
//! and what is observed.
//!
//! ```
//! use dit_ops::{Kernels, Linear};
//! use tch::{Device, Kind, Tensor};
//!
//! let weight = Tensor::randn([48, 32], (Kind::Float, Device::Cpu));
//! let bias = Tensor::randn([48], (Kind::Float, Device::Cpu));
//! let x = Tensor::randn([2, 5, 32], (Kind::Float, Device::Cpu));
//! let plain = x.linear(&weight, Some(&bias)).gelu("tanh");
//!
//! let mut linear = Linear::new(weight, Some(bias));
//! linear.optimize(Kernels::Fused);
//! assert!(linear.forward_gelu(&x).allclose(&plain, 1e-4, 1e-4, false));
//! ```
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod adamw;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod blocks;
mod context;
pub mod conv;
mod cpu;
mod cuda;
mod differentiable;
mod element;
mod error;
mod factors;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod functions;
mod gelu_epilogue;
mod gemm;
mod kernels;
mod linear;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod mask;
mod memory;
mod modulate;
#[cfg(target_arch = "aarch64")]
mod neon;
mod observe;
mod packed;
mod parallel;
mod pointwise;
mod quantize;
mod refused;
mod simd;
mod stored;
mod symbols;
mod tf32;
mod transpose;
mod version;

pub use adamw::{AdamW, AdamWKernel, AdamWOptions};
pub use attention::{merge_heads, plain_attention, self_attention, split_heads};
pub use cpu::Cpu;
pub use cuda::{allow_cudnn_attention, gpu_multiplies_bf16, links_cuda};
pub use error::OpsError;
pub use kernels::Kernels;
pub use linear::Linear;
pub use memory::keep_freed_memory;
pub use modulate::{add_gated, layer_norm_modulate, plain_add_gated, plain_layer_norm_modulate};
pub use observe::{Observed, observe_linears};
pub use packed::PackedLinear;
pub use refused::refused;
pub use stored::StoredWeight;
pub use tf32::{Tf32Scope, allow_tf32, tf32_setting};
pub use version::libtorch_version;
