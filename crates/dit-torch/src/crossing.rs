//! How Rust and C++ speak; see `crossing.h`.

use std::{
    any::Any,
    ffi::{CStr, CString, c_char, c_void},
};

use tch::{TchError, Tensor};

unsafe extern "C" {
    fn strdup(text: *const c_char) -> *mut c_char;
    fn free(memory: *mut c_void);
}

pub(crate) fn handles<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*mut c_void> {
    tensors.into_iter().map(|tensor| tensor.as_ptr().cast_mut().cast()).collect()
}

/// The text of a message of C++'s, if there is one.
pub(crate) fn take(message: *mut c_char) -> Option<String> {
    (!message.is_null()).then(|| {
        // SAFETY: a message is terminated, and ours to free.
        unsafe {
            let text = CStr::from_ptr(message).to_string_lossy().into_owned();
            free(message.cast());
            text
        }
    })
}

/// The new tensor that C++ made.
///
/// # Safety
/// C++ gave no message, and nobody else has this handle.
pub(crate) unsafe fn adopt(handle: *mut c_void) -> Tensor {
    // Also where the message had no memory.
    assert!(!handle.is_null(), "libtorch neither made a tensor nor said why");
    // SAFETY: it is a tensor's, and ours, by the caller's word.
    unsafe { Tensor::from_ptr(handle.cast()) }
}

/// A message of C++'s as an error.
pub(crate) fn outcome(message: *mut c_char) -> Result<(), TchError> {
    take(message).map_or(Ok(()), |text| Err(TchError::Torch(text)))
}

/// A message for C++, which frees it.
pub(crate) fn give(text: &str) -> *mut c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the text is terminated.
    unsafe { strdup(text.as_ptr()) }
}

/// What a panic says.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
