//! Operators written in Rust that libtorch differentiates through.

use std::{
    ffi::{CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
};

use tch::{TchError, Tensor};

use crate::crossing::{give, handles, outcome, take, text_of};

/// Takes over a context, gives a gradient for each wanted place.
type RawBackward = extern "C" fn(*mut c_void, *mut c_void, *const bool, *mut *mut c_void, usize) -> *mut c_char;
type RawDrop = extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn dit_torch_attach(
        name: *const c_char,
        output: *mut c_void,
        inputs: *const *mut c_void,
        count: usize,
        context: *mut c_void,
        backward: RawBackward,
        drop: RawDrop,
    ) -> *mut c_char;
    fn dit_torch_backward(outputs: *const *mut c_void, gradients: *const *mut c_void, count: usize) -> *mut c_char;
    fn dit_torch_forget_gradient(tensor: *mut c_void) -> *mut c_char;
    fn dit_torch_grad_is_enabled() -> bool;
}

/// From the output's gradient, and which inputs' are wanted, to those of the inputs, in their order. For one that is not wanted, and for
/// one that is zero, it gives `None`.
type Backward = Box<dyn FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>> + Send>;

/// An operator computes its output from its inputs however it likes, in memory that libtorch knows nothing of, and says how a gradient
/// of the output becomes gradients of the inputs: this puts that into libtorch's graph, where it is called in its turn by
/// [`backward`](tch::Tensor::backward).
///
/// ```
/// use dit_torch::differentiable;
/// use tch::{Kind, Tensor};
///
/// fn cube(x: &Tensor) -> Tensor {
///     let output = x.detach().pow_tensor_scalar(3);
///     let kept = x.detach();
///     differentiable("cube", &[x], output, move |gradient, _| {
///         vec![Some(gradient * kept.square() * 3.0)]
///     })
/// }
///
/// let x = Tensor::from_slice(&[2.0_f32, -1.0]).set_requires_grad(true);
/// cube(&x).sum(Kind::Float).backward();
/// assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [12.0, 3.0]);
/// ```
///
/// `output` as a function of `inputs`, whose gradient `backward` computes. Without a gradient mode, and where no input asks for its
/// gradient, it is `output` as it came, and `backward` is dropped.
///
/// `backward` is called once, under a no-gradient guard, with the gradient of the output (of its shape and kind, of any strides), and which of
/// the inputs' gradients are wanted. It gives them in the inputs' order, each of its input's shape. What it needs it must hold; it
/// must not hold `output` itself, only [`detach`](Tensor::detach)ed: the two would keep each other alive. Tensors that it holds must not change
/// in place before the backward pass, which libtorch would notice of its own operators, and nothing notices here. `name` is what
/// libtorch's messages call it.
///
/// It can be differentiated once: a gradient of the gradient is an error of libtorch's backward pass.
///
/// # Panics
/// If `output` is part of a graph already, or not of a floating-point kind. A panic in `backward` is an error of libtorch's backward pass.
pub fn differentiable(
    name: &str,
    inputs: &[&Tensor],
    mut output: Tensor,
    backward: impl FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>> + Send + 'static,
) -> Tensor {
    assert!(!output.requires_grad(), "{name}: the output is part of a graph already");
    if !inputs.iter().any(|input| input.requires_grad()) || !grad_is_enabled() {
        return output;
    }
    let name = CString::new(name.replace('\0', " ")).unwrap_or_default();
    let backward: Backward = Box::new(backward);
    let context: *mut Backward = Box::into_raw(Box::new(backward));
    let inputs = handles(inputs.iter().copied());
    // SAFETY: all pointers are those of live tensors; the node takes over the context, and gives it to one of the two functions, once.
    let message = unsafe {
        dit_torch_attach(
            name.as_ptr(),
            output.as_mut_ptr().cast(),
            inputs.as_ptr(),
            inputs.len(),
            context.cast(),
            raw_backward,
            raw_drop,
        )
    };
    if let Some(text) = take(message) {
        panic!("{}: {text}", name.to_string_lossy());
    }
    output
}

/// Adds to the gradients of the leaves that each output depends on, given that of the output itself, of its shape: libtorch's
/// backward pass from several tensors at once.
///
/// # Errors
/// libtorch's reason, as where one of the outputs is no part of a graph.
pub fn backward(outputs: &[(&Tensor, &Tensor)]) -> Result<(), TchError> {
    let (roots, gradients) =
        (handles(outputs.iter().map(|(root, _)| *root)), handles(outputs.iter().map(|(_, gradient)| *gradient)));
    // SAFETY: all pointers are those of live tensors.
    let message = unsafe { dit_torch_backward(roots.as_ptr(), gradients.as_ptr(), roots.len()) };
    outcome(message)
}

/// Leaves a tensor without a gradient, as it was before the first backward pass; the next one's is not added to anything.
///
/// # Errors
/// libtorch's reason, as where the tensor is no leaf.
pub fn forget_gradient(tensor: &Tensor) -> Result<(), TchError> {
    // SAFETY: the tensor is live.
    let message = unsafe { dit_torch_forget_gradient(tensor.as_ptr().cast_mut().cast()) };
    outcome(message)
}

/// Whether libtorch records what this thread computes.
pub fn grad_is_enabled() -> bool {
    // SAFETY: it reads a flag of this thread.
    unsafe { dit_torch_grad_is_enabled() }
}

extern "C" fn raw_backward(
    context: *mut c_void,
    gradient: *mut c_void,
    wanted: *const bool,
    results: *mut *mut c_void,
    count: usize,
) -> *mut c_char {
    // SAFETY: the node gives its context away here, and a gradient that is ours to free; `wanted` and `results` have `count` places.
    let (context, gradient, wanted, results) = unsafe {
        (
            Box::from_raw(context.cast::<Backward>()),
            Tensor::from_ptr(gradient.cast()),
            slice::from_raw_parts(wanted, count),
            slice::from_raw_parts_mut(results, count),
        )
    };
    let computed = catch_unwind(AssertUnwindSafe(|| {
        let _no_grad = tch::no_grad_guard();
        context(gradient, wanted)
    }));
    let message = match computed {
        Ok(gradients) if gradients.len() == count => {
            for (place, gradient) in results.iter_mut().zip(gradients) {
                if let Some(mut gradient) = gradient {
                    *place = gradient.as_mut_ptr().cast();
                    // Handed over.
                    std::mem::forget(gradient);
                }
            }
            return std::ptr::null_mut();
        }
        Ok(gradients) => format!("{} gradients for {count} inputs", gradients.len()),
        Err(panic) => text_of(&*panic).to_owned(),
    };
    give(&message)
}

extern "C" fn raw_drop(context: *mut c_void) {
    // SAFETY: the node gives its context away here.
    let context = unsafe { Box::from_raw(context.cast::<Backward>()) };
    // Nobody could do anything about a panic here, and it must not leave Rust.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(context)));
}
