//! oneDNN's convolution with its ReLU fused, through libtorch's C interface (`torch/csrc/inductor/aoti_torch/c/shim_cpu.h`).

use std::{
    ffi::{c_char, c_void},
    ptr,
};

use tch::{Device, Kind, TchError, Tensor};

/// `AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise(X, W, B, padding, …, stride, …, dilation, …, groups, attr,
/// scalars, …, algorithm, result)`; tensors are `at::Tensor*`, as tch holds them, and are borrowed.
type ConvolutionPointwise = unsafe extern "C" fn(
    *const c_void,
    *const c_void,
    *const *const c_void,
    *const i64,
    i64,
    *const i64,
    i64,
    *const i64,
    i64,
    i64,
    *const c_char,
    *const *const f64,
    i64,
    *const *const c_char,
    *mut *mut c_void,
) -> i32;

/// relu(conv(x) + bias); none where this libtorch or this tensor has no such operation, and the plain ones are to be used.
///
/// # Errors
/// libtorch's refusal; it writes its reason to the standard error output.
pub(super) fn convolution_relu(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    stride: [i64; 2],
    padding: [i64; 2],
) -> Result<Option<Tensor>, TchError> {
    if x.device() != Device::Cpu || x.kind() != Kind::Float || x.numel() == 0 {
        return Ok(None);
    }
    let Some(function) = function() else { return Ok(None) };
    let bias: *const c_void = bias.as_ptr().cast();
    let dilation = [1i64, 1];
    let algorithm: *const c_char = c"".as_ptr();
    let mut result = ptr::null_mut();
    // SAFETY: all pointers are those of live tensors, arrays of the given lengths and terminated names; `result` takes the new
    // tensor's handle.
    let status = unsafe {
        function(
            x.as_ptr().cast(),
            weight.as_ptr().cast(),
            &raw const bias,
            padding.as_ptr(),
            2,
            stride.as_ptr(),
            2,
            dilation.as_ptr(),
            2,
            1,
            c"relu".as_ptr(),
            ptr::null(),
            0,
            &raw const algorithm,
            &raw mut result,
        )
    };
    if status != 0 || result.is_null() {
        return Err(TchError::Torch(format!("mkldnn::_convolution_pointwise failed on {:?}", x.size())));
    }
    // SAFETY: on success the handle is a new tensor that nobody else owns.
    Ok(Some(unsafe { Tensor::from_ptr(result.cast()) }))
}

/// The function, where the libtorch of this process has it (builds without oneDNN do not).
fn function() -> Option<ConvolutionPointwise> {
    #[cfg(unix)]
    {
        static FOUND: std::sync::OnceLock<Option<ConvolutionPointwise>> = std::sync::OnceLock::new();
        *FOUND.get_or_init(|| {
            let name = c"aoti_torch_cpu_mkldnn__convolution_pointwise";
            // SAFETY: `name` is a C string; dlsym only searches the loaded libraries.
            let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            // SAFETY: libtorch's header declares the symbol with this signature.
            (!address.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, ConvolutionPointwise>(address) })
        })
    }
    #[cfg(not(unix))]
    None
}
