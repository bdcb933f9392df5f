use std::ffi::{c_char, c_void};

use tch::{Device, TchError, Tensor};

use crate::crossing::{adopt, outcome};

unsafe extern "C" {
    fn dit_torch_bring(tensor: *mut c_void, gpu: i64, result: *mut *mut c_void) -> *mut c_char;
}

/// A tensor of the host on `device`. A GPU takes it when it comes to that: nobody waits for what it was given before, as a plain copy
/// would. (What is in pinned memory already must not be written to before.)
///
/// # Errors
/// libtorch's reason, as where there is no such device, or no memory there.
pub fn bring(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    let (Device::Cuda(gpu), Device::Cpu) = (device, tensor.device()) else { return tensor.f_to_device(device) };
    let mut result = std::ptr::null_mut();
    // SAFETY: the tensor is live; `result` is a place for a new one.
    outcome(unsafe { dit_torch_bring(tensor.as_ptr().cast_mut().cast(), gpu as i64, &mut result) })?;
    // SAFETY: there was no message.
    Ok(unsafe { adopt(result) })
}
