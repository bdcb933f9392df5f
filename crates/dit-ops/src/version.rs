use std::{ffi::c_void, mem};

use crate::symbols::lookup;

/// The version of the libtorch that this process has loaded, as `2.11.0`; none where it does not say.
pub fn libtorch_version() -> Option<String> {
    let function = lookup(c"aoti_torch_abi_version")?;
    // SAFETY: a function of this name takes nothing and returns the version, a byte each for major, minor and patch from the top.
    let packed = unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn() -> u64>(function)() };
    let [major, minor, patch, ..] = packed.to_be_bytes();
    Some(format!("{major}.{minor}.{patch}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_one_that_the_bindings_are_for() {
        assert_eq!(super::libtorch_version().as_deref(), Some("2.11.0"));
    }
}
