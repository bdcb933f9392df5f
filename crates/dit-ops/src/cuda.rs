//! What a program has of CUDA.

use std::ffi::{c_int, c_void};

use crate::{context::Flag, symbols::lookup};

/// Whether this program is linked to the part of libtorch that computes on GPUs: without it none is ever seen, whatever the machine has.
pub fn links_cuda() -> bool {
    lookup(c"aoti_torch_create_cuda_guard").is_some()
}

/// Whether libtorch may hand attention to cuDNN, which it prefers to its own kernels on some GPUs; for the whole process. `false` where this
/// libtorch does not export the switch, and nothing has changed.
pub fn allow_cudnn_attention(allowed: bool) -> bool {
    let flag = Flag::find(c"_ZN2at7Context14setSDPUseCuDNNEb");
    flag.as_ref().inspect(|flag| flag.set(allowed)).is_some()
}

/// Whether the GPU of this number multiplies bf16 in hardware, as those of compute capability 8.0 (Ampere) and newer do: others compute it
/// in fp32, and convert. `None` where CUDA does not say.
pub fn gpu_multiplies_bf16(number: usize) -> Option<bool> {
    /// `cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device)`.
    type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    /// `cudaDevAttrComputeCapabilityMajor`.
    const MAJOR: c_int = 75;
    let number = c_int::try_from(number).ok()?;
    let address = lookup(c"cudaDeviceGetAttribute")?;
    let mut major = 0;
    // SAFETY: CUDA's header cuda_runtime_api.h declares the function with this signature; it writes one number.
    let error = unsafe {
        let get = std::mem::transmute::<*mut c_void, GetAttribute>(address);
        get(&raw mut major, MAJOR, number)
    };
    (error == 0).then_some(major >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch's wheels for CPUs bring CUDA's run time too, which answers.
    #[test]
    fn a_gpu_that_is_not_there_says_nothing() {
        assert_eq!(gpu_multiplies_bf16(tch::Cuda::device_count() as usize), None);
    }

    /// The context is the same in builds for CPUs and for GPUs.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_switch_of_cudnn_s_attention_is_there() {
        assert!(allow_cudnn_attention(false) && allow_cudnn_attention(true));
    }
}
