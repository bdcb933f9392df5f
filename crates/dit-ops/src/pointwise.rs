//! oneDNN's Linears with an activation fused, through libtorch's C interface (`torch/csrc/inductor/aoti_torch/c/shim_cpu.h`).

use std::{
    ffi::{c_char, c_void},
    mem, ptr,
    sync::OnceLock,
};

use tch::{Device, Kind, Tensor};

use crate::{OpsError, cpu::Cpu, gemm::Activation, symbols::lookup};

/// `AOTITorchError aoti_torch_cpu__linear_pointwise(X, W, B, attr, scalars, scalars_len, algorithm, result)`; tensors are
/// `at::Tensor*`, as tch holds them, and are borrowed.
type LinearPointwise = unsafe extern "C" fn(
    *const c_void,
    *const c_void,
    *const *const c_void,
    *const c_char,
    *const *const f64,
    i64,
    *const *const c_char,
    *mut *mut c_void,
) -> i32;

/// oneDNN's Linear, where this libtorch has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pointwise(LinearPointwise);

impl Pointwise {
    /// Looks once in the running process.
    pub(crate) fn get() -> Option<Self> {
        static FOUND: OnceLock<Option<Pointwise>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let address = lookup(c"aoti_torch_cpu__linear_pointwise")?;
            // SAFETY: libtorch's header declares the symbol with this signature.
            Some(Self(unsafe { mem::transmute::<*mut c_void, LinearPointwise>(address) }))
        })
    }

    /// Whether it computes with tensors of this kind and place: with bf16, on CPUs that have instructions for that, or AVX-512.
    pub(crate) fn accepts(x: &Tensor) -> bool {
        let cpu = Cpu::detect();
        let kind = match x.kind() {
            Kind::Float => true,
            Kind::BFloat16 => cpu.bf16 || cpu.avx512,
            _ => false,
        };
        x.device() == Device::Cpu && kind && x.numel() > 0
    }

    /// activation(x·Wᵀ + b). Nothing is recorded for a gradient.
    ///
    /// # Shapes
    /// `x` (…, inputs), `weight` (outputs, inputs), `bias` (outputs) → (…, outputs).
    ///
    /// # Errors
    /// [`OpsError::Operator`]; libtorch writes its reason to the standard error output.
    pub(crate) fn linear(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor, OpsError> {
        let bias = bias.map(|bias| bias.as_ptr().cast::<c_void>());
        let bias = bias.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (name, algorithm) = match activation {
            Activation::Identity => (c"none", c""),
            Activation::GeluTanh => (c"gelu", c"tanh"),
        };
        let algorithm = algorithm.as_ptr();
        let mut result = ptr::null_mut();
        // SAFETY: all pointers are those of live tensors and terminated names; `result` takes the new tensor's handle.
        let status = unsafe {
            (self.0)(
                x.as_ptr().cast(),
                weight.as_ptr().cast(),
                bias,
                name.as_ptr(),
                ptr::null(),
                0,
                &raw const algorithm,
                &raw mut result,
            )
        };
        if status != 0 || result.is_null() {
            return Err(OpsError::Operator { operator: "mkldnn::_linear_pointwise".to_owned() });
        }
        // SAFETY: a successful call gives a tensor that the caller owns.
        Ok(unsafe { Tensor::from_ptr(result.cast()) })
    }
}
