//! What a program has of CUDA.

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The context is the same in builds for CPUs and for GPUs.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_switch_of_cudnn_s_attention_is_there() {
        assert!(allow_cudnn_attention(false) && allow_cudnn_attention(true));
    }
}
