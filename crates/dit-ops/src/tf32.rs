//! How CUDA multiplies fp32: libtorch's own switch, which the bindings do not have.

use std::sync::atomic::{AtomicU8, Ordering};

use tch::Cuda;

use crate::{OpsError, context::Flag};

/// Whether CUDA may multiply fp32 as TF32: 10 bits of mantissa in place of 23, sums in fp32, several times as fast. For the whole
/// process, for matrix products and convolutions alike. libtorch begins with IEEE products but TF32 convolutions; this makes both the same.
///
/// It stays until it is changed; [`Tf32Scope`] is for a while. Nothing changes on a CPU. A libtorch without CUDA accepts it, and has nothing to use it for.
///
/// # Errors
/// [`OpsError::Tf32`] where a CUDA device is visible and this libtorch does not export its switch.
pub fn allow_tf32(allowed: bool) -> Result<(), OpsError> {
    match Switch::find() {
        Some(switch) => {
            switch.set(allowed);
            SETTING.store(1 + u8::from(allowed), Ordering::Relaxed);
            Ok(())
        }
        None if Cuda::is_available() => Err(OpsError::Tf32),
        None => Ok(()),
    }
}

/// What [`allow_tf32`] last set; none where it is as libtorch begins. What computes in fp32 on a GPU is another computation with each.
pub fn tf32_setting() -> Option<bool> {
    match SETTING.load(Ordering::Relaxed) {
        0 => None,
        set => Some(set == 2),
    }
}

/// 0 until it is set, then 1 and what it is.
static SETTING: AtomicU8 = AtomicU8::new(0);

/// TF32 is allowed as long as this lives, and then no more.
#[derive(Debug)]
#[must_use = "TF32 is allowed only as long as this lives"]
pub struct Tf32Scope(());

impl Tf32Scope {
    /// Allows it.
    ///
    /// # Errors
    /// As [`allow_tf32`].
    pub fn new() -> Result<Self, OpsError> {
        allow_tf32(true).map(|()| Self(()))
    }
}

impl Drop for Tf32Scope {
    fn drop(&mut self) {
        // What was found when it began is still there.
        let _ = allow_tf32(false);
    }
}

/// Both of libtorch's switches.
struct Switch {
    products: Flag,
    convolutions: Flag,
}

impl Switch {
    fn find() -> Option<Self> {
        Some(Self {
            products: Flag::find(c"_ZN2at7Context18setAllowTF32CuBLASEb")?,
            convolutions: Flag::find(c"_ZN2at7Context17setAllowTF32CuDNNEb")?,
        })
    }

    fn set(&self, allowed: bool) {
        self.products.set(allowed);
        self.convolutions.set(allowed);
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::c_void, mem};

    use super::*;
    use crate::{context::GlobalContext, symbols::lookup};

    /// What libtorch says itself of matrix products and of convolutions.
    fn is_allowed() -> [bool; 2] {
        let found = |name| lookup(name).expect("libtorch tells its switch");
        let products = found(c"_ZNK2at7Context15allowTF32CuBLASEv");
        let convolutions = found(c"_ZNK2at7Context14allowTF32CuDNNESt8optionalINS_9Float32OpEE");
        type OfProducts = unsafe extern "C" fn(*mut c_void) -> bool;
        // An optional enumeration of 8 bits is passed as a number; that of no operator is 0.
        type OfConvolutions = unsafe extern "C" fn(*mut c_void, u64) -> bool;
        // SAFETY: as above; constant members that return a bool.
        unsafe {
            let context = mem::transmute::<*mut c_void, GlobalContext>(found(c"_ZN2at13globalContextEv"))();
            [
                mem::transmute::<*mut c_void, OfProducts>(products)(context),
                mem::transmute::<*mut c_void, OfConvolutions>(convolutions)(context, 0),
            ]
        }
    }

    /// One test, as the switch is the process's. A switch that rounded on a CPU too would be a surprise.
    #[test]
    fn libtorch_takes_the_switch_both_ways_and_products_on_a_cpu_stay() {
        let random = || tch::Tensor::rand([64, 64], tch::kind::FLOAT_CPU);
        let (a, b) = (random(), random());
        let exact = a.matmul(&b);
        assert_eq!(is_allowed(), [false, true], "libtorch no longer begins as allow_tf32 says");
        assert_eq!(tf32_setting(), None);
        for allowed in [true, false, true, false] {
            allow_tf32(allowed).unwrap();
            assert_eq!((is_allowed(), tf32_setting()), ([allowed; 2], Some(allowed)));
            assert_eq!(a.matmul(&b), exact);
        }
        let scope = Tf32Scope::new().unwrap();
        assert_eq!(is_allowed(), [true; 2]);
        drop(scope);
        assert_eq!(is_allowed(), [false; 2]);
    }
}
