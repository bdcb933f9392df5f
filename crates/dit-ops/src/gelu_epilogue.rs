//! GELU on a product's results before they leave the multiplier's registers, on GPUs: a pass less over the widest activations of a block.
//! Through libtorch's C interface (`torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h`): tch 0.24 hands its flag for GELU over as a factor.

use std::{
    ffi::{CStr, c_void},
    mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tch::{Kind, Tensor};

use crate::symbols::lookup;

/// `AOTITorchError aoti_torch_…__addmm_activation(self, mat1, mat2, beta, alpha, use_gelu, ret0)`; tensors are `at::Tensor*`, as tch holds
/// them, and are borrowed.
type AddmmActivation =
    unsafe extern "C" fn(*const c_void, *const c_void, *const c_void, f64, f64, i32, *mut *mut c_void) -> i32;

/// A product with GELU in its epilogue, where this libtorch has it for GPUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GeluEpilogue(AddmmActivation);

impl GeluEpilogue {
    /// For CUDA's tensors: cuBLASLt's product with that epilogue, or a product and GELU where there is none; either way GELU in its tanh form.
    /// Looks once in the running process.
    pub(crate) fn of_cuda() -> Option<Self> {
        static FOUND: OnceLock<Option<GeluEpilogue>> = OnceLock::new();
        *FOUND.get_or_init(|| Self::named(c"aoti_torch_cuda__addmm_activation"))
    }

    /// Whether it is for products with `weight`: on a GPU, in bf16. How exact cuBLASLt's tanh is in fp32 is not said anywhere.
    pub(crate) fn suits(weight: &Tensor) -> bool {
        weight.device().is_cuda() && weight.kind() == Kind::BFloat16
    }

    fn named(symbol: &CStr) -> Option<Self> {
        let address = lookup(symbol)?;
        // SAFETY: libtorch's header declares symbols of such names with this signature.
        Some(Self(unsafe { mem::transmute::<*mut c_void, AddmmActivation>(address) }))
    }

    /// GELU(x·Wᵀ + b). Nothing is recorded for a gradient. `None` where kinds differ, and if libtorch fails: it writes its reason to the standard
    /// error output, and is not asked again.
    ///
    /// # Shapes
    /// `x` (…, inputs), `weight` (outputs, inputs), `bias` (outputs) → (…, outputs).
    pub(crate) fn linear(self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Option<Tensor> {
        static FAILED: AtomicBool = AtomicBool::new(false);
        if x.kind() != weight.kind() || FAILED.load(Ordering::Relaxed) {
            return None;
        }
        let mut shape = x.size();
        let inputs = mem::replace(shape.last_mut()?, *weight.size().first()?);
        let (rows, weight) = (x.f_reshape([-1, inputs]).ok()?, weight.tr()); // (rows, inputs) · (inputs, outputs)
        let (of_bias, of_product, use_gelu) = (1.0, 1.0, 1);
        let mut result = ptr::null_mut();
        // SAFETY: all pointers are those of live tensors; `result` takes the new tensor's handle.
        let status = unsafe {
            (self.0)(
                bias.as_ptr().cast(),
                rows.as_ptr().cast(),
                weight.as_ptr().cast(),
                of_bias,
                of_product,
                use_gelu,
                &raw mut result,
            )
        };
        if status != 0 || result.is_null() {
            FAILED.store(true, Ordering::Relaxed);
            return None;
        }
        // SAFETY: a successful call gives a tensor that the caller owns.
        unsafe { Tensor::from_ptr(result.cast()) }.f_view(shape.as_slice()).ok()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Cuda, Device};

    use super::*;

    fn factors(device: Device) -> [Tensor; 3] {
        tch::manual_seed(1);
        [&[3, 5, 32][..], &[48, 32], &[48]].map(|shape| Tensor::randn(shape, (Kind::Float, device)))
    }

    /// A CPU's operator of the same signature, whose GELU is that with erf, shows that everything finds its place.
    #[test]
    fn rows_weights_and_bias_find_their_places() {
        let Some(epilogue) = GeluEpilogue::named(c"aoti_torch_cpu__addmm_activation") else {
            eprintln!("SKIPPED: this libtorch has no such operator");
            return;
        };
        let [x, weight, bias] = factors(Device::Cpu);
        let found = epilogue.linear(&x, &weight, &bias).expect("the shapes fit");
        assert!(found.allclose(&x.linear(&weight, Some(&bias)).gelu("none"), 1e-5, 1e-5, false));
        assert!(epilogue.linear(&x.to_kind(Kind::Double), &weight, &bias).is_none(), "another kind");
    }

    #[test]
    fn a_gpu_computes_the_tanh_form() {
        let Some(epilogue) = GeluEpilogue::of_cuda().filter(|_| Cuda::is_available()) else {
            eprintln!("SKIPPED: no GPU");
            return;
        };
        let [x, weight, bias] = factors(Device::Cuda(0));
        let found = epilogue.linear(&x, &weight, &bias).expect("the shapes fit").to_kind(Kind::Double);
        let [x, weight, bias] = [x, weight, bias].map(|factor| factor.to_kind(Kind::Double));
        let sums = x.linear(&weight, Some(&bias));
        let off = |form: &str| (&found - sums.gelu(form)).abs().max().double_value(&[]);
        assert!(off("tanh") < 0.2 * off("none"), "{} from the tanh form, {} from erf's", off("tanh"), off("none"));
    }
}
