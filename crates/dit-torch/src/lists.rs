//! libtorch's operators over lists of tensors: on a GPU some launches for all of a network's parameters, where one operator after the
//! other takes a launch each, and a training step has thousands of them. On a CPU they are the operators one after the other.
//!
//! All tensors are of one device, and those of a list of one kind. Nothing is recorded for a gradient.

use std::ffi::{c_char, c_void};

use tch::{Kind, TchError, Tensor};

use crate::crossing::{adopt, handles, outcome};

type Handles = *const *mut c_void;

unsafe extern "C" {
    fn dit_torch_copy(targets: Handles, sources: Handles, count: usize) -> *mut c_char;
    fn dit_torch_add(targets: Handles, others: Handles, count: usize) -> *mut c_char;
    fn dit_torch_lerp(targets: Handles, ends: Handles, count: usize, weight: f64) -> *mut c_char;
    fn dit_torch_scale(targets: Handles, count: usize, factor: f64) -> *mut c_char;
    fn dit_torch_norm(tensors: Handles, count: usize, result: *mut *mut c_void) -> *mut c_char;
    fn dit_torch_adamw(
        parameters: Handles,
        gradients: Handles,
        means: Handles,
        squares: Handles,
        count: usize,
        step: *mut c_void,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
}

/// Puts the values of `sources` into `targets`, which keep their kind.
///
/// # Errors
/// Lists of different lengths, and libtorch's reason, as for other shapes.
pub fn copy(targets: &mut [Tensor], sources: &[Tensor]) -> Result<(), TchError> {
    let (targets, sources) = pairs(targets, sources)?;
    let _no_grad = tch::no_grad_guard();
    // SAFETY: both lists are `count` live tensors.
    some(&targets, |count| unsafe { dit_torch_copy(targets.as_ptr(), sources.as_ptr(), count) })
}

/// target ← target + other.
///
/// # Errors
/// As [`copy`].
pub fn add(targets: &mut [Tensor], others: &[Tensor]) -> Result<(), TchError> {
    let (targets, others) = pairs(targets, others)?;
    let _no_grad = tch::no_grad_guard();
    // SAFETY: both lists are `count` live tensors.
    some(&targets, |count| unsafe { dit_torch_add(targets.as_ptr(), others.as_ptr(), count) })
}

/// target ← target + `weight`·(end − target).
///
/// # Errors
/// As [`copy`]; other kinds.
pub fn lerp(targets: &mut [Tensor], ends: &[Tensor], weight: f64) -> Result<(), TchError> {
    let (targets, ends) = pairs(targets, ends)?;
    let _no_grad = tch::no_grad_guard();
    // SAFETY: both lists are `count` live tensors.
    some(&targets, |count| unsafe { dit_torch_lerp(targets.as_ptr(), ends.as_ptr(), count, weight) })
}

/// target ← `factor`·target.
///
/// # Errors
/// libtorch's reason.
pub fn scale(targets: &mut [Tensor], factor: f64) -> Result<(), TchError> {
    let targets = handles(&*targets);
    let _no_grad = tch::no_grad_guard();
    // SAFETY: the list is `count` live tensors.
    some(&targets, |count| unsafe { dit_torch_scale(targets.as_ptr(), count, factor) })
}

/// The 2-norm of all values together, an f64 scalar on their device. That of each tensor is of its own kind.
///
/// # Errors
/// An empty list, which has no device; libtorch's reason.
pub fn norm(tensors: &[Tensor]) -> Result<Tensor, TchError> {
    let tensors = handles(tensors);
    let mut result = std::ptr::null_mut();
    let _no_grad = tch::no_grad_guard();
    // SAFETY: the list is that of live tensors; `result` is a place for a new one.
    outcome(unsafe { dit_torch_norm(tensors.as_ptr(), tensors.len(), &mut result) })?;
    // SAFETY: there was no message.
    Ok(unsafe { adopt(result) })
}

/// The numbers of an [`adamw`] step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Share of each parameter that is taken off, times the learning rate.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// A step of libtorch's fused AdamW: moves `parameters` against `gradients`, and their `means` and mean `squares` with them.
/// `number` is a scalar of fp32, the steps taken, this one included.
///
/// # Errors
/// As [`copy`]; tensors that are not fp32 and contiguous, or of other shapes than their parameter: the operator walks through memory,
/// and asks nothing.
pub fn adamw(
    parameters: &mut [Tensor],
    gradients: &[Tensor],
    [means, squares]: [&mut [Tensor]; 2],
    number: &Tensor,
    step: AdamWStep,
) -> Result<(), TchError> {
    for beside in [gradients, &*means, &*squares] {
        if beside.len() != parameters.len() {
            return Err(differ(parameters.len(), beside.len()));
        }
        for (parameter, beside) in parameters.iter().zip(beside) {
            let walked = |tensor: &Tensor| tensor.kind() == Kind::Float && tensor.is_contiguous();
            if parameter.size() != beside.size() || !walked(parameter) || !walked(beside) {
                let (of, found) = (parameter.size(), beside.size());
                return Err(TchError::Torch(format!("not fp32, contiguous and of one shape: {of:?} and {found:?}")));
            }
        }
    }
    if number.kind() != Kind::Float || number.numel() != 1 {
        return Err(TchError::Torch("the number of a step is one of fp32".to_owned()));
    }
    let mut devices =
        [&*parameters, gradients, &*means, &*squares].into_iter().flatten().chain([number]).map(Tensor::device);
    if !alike(&mut devices) {
        return Err(TchError::Torch("all of a step is of one device".to_owned()));
    }
    let [parameters, gradients, means, squares] = [&*parameters, gradients, &*means, &*squares].map(handles);
    let AdamWStep { lr, beta1, beta2, weight_decay, eps } = step;
    let _no_grad = tch::no_grad_guard();
    // SAFETY: each list is `count` live tensors, and so is `number`.
    some(&parameters, |count| unsafe {
        dit_torch_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            means.as_ptr(),
            squares.as_ptr(),
            count,
            number.as_ptr().cast_mut().cast(),
            lr,
            beta1,
            beta2,
            weight_decay,
            eps,
        )
    })
}

/// Handles of two lists that operators may go through side by side. What these ask for themselves changes from version to version.
fn pairs(one: &[Tensor], other: &[Tensor]) -> Result<(Vec<*mut c_void>, Vec<*mut c_void>), TchError> {
    if one.len() != other.len() {
        return Err(differ(one.len(), other.len()));
    }
    let (mut kinds, mut devices) = (one.iter().map(Tensor::kind), one.iter().chain(other).map(Tensor::device));
    let mut others = other.iter().map(Tensor::kind);
    if !alike(&mut kinds) || !alike(&mut others) || !alike(&mut devices) {
        return Err(TchError::Torch("a list's tensors are of one kind, and all of one device".to_owned()));
    }
    Ok((handles(one), handles(other)))
}

fn alike<T: PartialEq>(items: &mut impl Iterator<Item = T>) -> bool {
    items.next().is_none_or(|first| items.all(|item| item == first))
}

fn differ(one: usize, other: usize) -> TchError {
    TchError::Torch(format!("lists of {one} and {other} tensors"))
}

/// Of an empty list libtorch's operators know no device.
fn some(tensors: &[*mut c_void], work: impl FnOnce(usize) -> *mut c_char) -> Result<(), TchError> {
    if tensors.is_empty() { Ok(()) } else { outcome(work(tensors.len())) }
}
