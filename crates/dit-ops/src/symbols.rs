//! Functions of libtorch's C interface that may or may not be in the libtorch this process runs with: builds without oneDNN
//! (macOS, some CUDA builds) lack some of them, so they are looked up at run time and never linked.

use std::ffi::{CStr, c_void};

/// The address of a function in the libraries of the running process, if one of them exports it.
pub(crate) fn lookup(name: &CStr) -> Option<*mut c_void> {
    #[cfg(unix)]
    {
        // SAFETY: `name` is a C string; dlsym only searches the loaded libraries.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        None
    }
}
