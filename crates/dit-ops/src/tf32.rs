//! How CUDA multiplies fp32: libtorch's own switch, which the bindings do not have.

use std::{ffi::c_void, mem};

use tch::Cuda;

use crate::{OpsError, symbols::lookup};

type GlobalContext = unsafe extern "C" fn() -> *mut c_void;
type SetFlag = unsafe extern "C" fn(*mut c_void, bool);

/// Whether CUDA may multiply fp32 as TF32: 10 bits of mantissa in place of 23, sums in fp32, several times as fast. For the whole
/// process, for matrix products and convolutions alike. libtorch begins with IEEE products but TF32 convolutions; this makes both the same.
///
/// Nothing changes on a CPU. A libtorch without CUDA accepts it, and has nothing to use it for.
///
/// # Errors
/// [`OpsError::Tf32`] where a CUDA device is visible and this libtorch does not export its switch.
pub fn allow_tf32(allowed: bool) -> Result<(), OpsError> {
    match Switch::find() {
        Some(switch) => {
            switch.set(allowed);
            Ok(())
        }
        None if Cuda::is_available() => Err(OpsError::Tf32),
        None => Ok(()),
    }
}

/// Members of libtorch's context, `at::Context`, by their names in the Itanium ABI, in which `this` is the first argument.
struct Switch {
    context: GlobalContext,
    products: SetFlag,
    convolutions: SetFlag,
}

impl Switch {
    fn find() -> Option<Self> {
        let context = lookup(c"_ZN2at13globalContextEv")?;
        let products = lookup(c"_ZN2at7Context18setAllowTF32CuBLASEb")?;
        let convolutions = lookup(c"_ZN2at7Context17setAllowTF32CuDNNEb")?;
        // SAFETY: the mangled names give the arguments' types: none; and a context and a bool, twice. A reference is returned
        // as a pointer.
        unsafe {
            Some(Self {
                context: mem::transmute::<*mut c_void, GlobalContext>(context),
                products: mem::transmute::<*mut c_void, SetFlag>(products),
                convolutions: mem::transmute::<*mut c_void, SetFlag>(convolutions),
            })
        }
    }

    fn set(&self, allowed: bool) {
        // SAFETY: the context lives as long as the process; both set numbers in it.
        unsafe {
            let context = (self.context)();
            (self.products)(context, allowed);
            (self.convolutions)(context, allowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libtorch says itself of matrix products.
    fn is_allowed() -> bool {
        let context = lookup(c"_ZN2at13globalContextEv").expect("libtorch has a context");
        let products = lookup(c"_ZNK2at7Context15allowTF32CuBLASEv").expect("libtorch tells its switch");
        // SAFETY: as above; a constant member without arguments that returns a bool.
        unsafe {
            let context = mem::transmute::<*mut c_void, GlobalContext>(context)();
            mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> bool>(products)(context)
        }
    }

    /// One test, as the switch is the process's. A switch that rounded on a CPU too would be a surprise.
    #[test]
    fn libtorch_takes_the_switch_both_ways_and_products_on_a_cpu_stay() {
        let random = || tch::Tensor::rand([64, 64], tch::kind::FLOAT_CPU);
        let (a, b) = (random(), random());
        let exact = a.matmul(&b);
        for allowed in [true, false, true, false] {
            allow_tf32(allowed).unwrap();
            assert_eq!(is_allowed(), allowed);
            assert_eq!(a.matmul(&b), exact);
        }
    }
}
