//! Switches of libtorch's context, `at::Context`, that the bindings do not have.

use std::{
    ffi::{CStr, c_void},
    mem,
};

use crate::symbols::lookup;

pub(crate) type GlobalContext = unsafe extern "C" fn() -> *mut c_void;
type SetFlag = unsafe extern "C" fn(*mut c_void, bool);

/// A switch for the whole process.
pub(crate) struct Flag {
    context: GlobalContext,
    set: SetFlag,
}

impl Flag {
    /// By the name, in the Itanium ABI, of the member of `at::Context` that sets it and takes a `bool`. `None` where this libtorch does not
    /// export it.
    pub(crate) fn find(setter: &CStr) -> Option<Self> {
        let (context, set) = (lookup(c"_ZN2at13globalContextEv")?, lookup(setter)?);
        // SAFETY: the mangled names give the arguments' types: none; and a bool, after `this`. A reference is returned as a pointer.
        unsafe {
            Some(Self {
                context: mem::transmute::<*mut c_void, GlobalContext>(context),
                set: mem::transmute::<*mut c_void, SetFlag>(set),
            })
        }
    }

    pub(crate) fn set(&self, value: bool) {
        // SAFETY: the context lives as long as the process; a number is set in it.
        unsafe { (self.set)((self.context)(), value) }
    }
}
