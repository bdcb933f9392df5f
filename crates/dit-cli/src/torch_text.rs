//! What libtorch says when it fails, made fit to be read.

/// How want of memory reads, of the system's or of a GPU's. CUDA's libraries say it in their own ways; cuDNN, that no engine can do it.
const MEMORY: [&str; 6] = [
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine",
];

/// Whether this is want of memory.
pub fn is_want_of_memory(text: &str) -> bool {
    MEMORY.iter().any(|sign| text.contains(sign))
}

/// The text without the C++ call stack that libtorch appends, a line each.
pub fn without_call_stack(text: &str) -> &str {
    let stack = ["\nException raised from ", "\nframe #"].iter().filter_map(|begin| text.find(begin)).min();
    text[..stack.unwrap_or(text.len())].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_stacks_are_cut_and_help_is_not() {
        let raised =
            "CUDA error: no kernel image\nException raised from f at g.cpp:1 (most recent call first):\nframe #0: h";
        assert_eq!(without_call_stack(raised), "CUDA error: no kernel image");
        assert_eq!(without_call_stack("shape\nframe #0: c10::Error"), "shape");
        assert_eq!(without_call_stack("no\n  help: do this"), "no\n  help: do this");
    }

    #[test]
    fn every_library_s_want_of_memory_is_known() {
        for text in [
            "CUDA out of memory. Tried to allocate 20.00 GiB",
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "GET was unable to find an engine to execute this computation",
        ] {
            assert!(is_want_of_memory(text), "{text}");
        }
        assert!(!is_want_of_memory("CUDA error: no kernel image is available for execution on the device"));
    }
}
