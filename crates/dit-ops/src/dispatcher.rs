//! Operators by name, through libtorch's stable C interface (`torch/csrc/stable/c/shim.h`).
//!
//! The functions are looked up in the running process: a libtorch without them is not an error of the linker, but
//! [`Dispatcher::get`] gives nothing, and the caller does the same with plain operators.

use std::{
    ffi::{CStr, c_char, c_void},
    mem, ptr,
    sync::OnceLock,
};

use tch::Tensor;

use crate::{OpsError, symbols::lookup};

/// Which libtorch the argument lists below were written for: 2.11.0, as `TORCH_ABI_VERSION` packs it.
const ABI_VERSION: u64 = (2 << 56) | (11 << 48);

/// libtorch's `StableIValue`: a number, a flag or a handle, in 64 bits.
type Value = u64;
/// Zero is success.
type Status = i32;

type Call = unsafe extern "C" fn(*const c_char, *const c_char, *mut Value, u64) -> Status;
type NewList = unsafe extern "C" fn(usize, *mut *mut c_void) -> Status;
type Push = unsafe extern "C" fn(*mut c_void, Value) -> Status;
type Threads = unsafe extern "C" fn(*mut u32) -> Status;

/// The way to libtorch's operators.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dispatcher {
    call: Call,
    new_list: NewList,
    push: Push,
}

/// An argument of an operator, of the type that its schema gives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument<'a> {
    /// `Tensor[]`.
    Tensors(&'a [Tensor]),
    /// `float`.
    Float(f64),
    /// `bool`.
    Bool(bool),
    /// Nothing, for an optional argument.
    Absent,
}

impl Dispatcher {
    /// The dispatcher of the libtorch that this process has loaded, where that offers one of the version known here.
    pub(crate) fn get() -> Option<Self> {
        static FOUND: OnceLock<Option<Dispatcher>> = OnceLock::new();
        *FOUND.get_or_init(Self::find)
    }

    fn find() -> Option<Self> {
        let call = lookup(c"torch_call_dispatcher")?;
        let new_list = lookup(c"torch_new_list_reserve_size")?;
        let push = lookup(c"torch_list_push_back")?;
        // Came with the same version as the three above: a cheap proof that the interface answers.
        let threads = lookup(c"torch_get_num_threads")?;
        let mut count = 0;
        // SAFETY: functions of these names have these types in every libtorch that has them: the interface is declared stable.
        unsafe {
            let threads: Threads = mem::transmute::<*mut c_void, Threads>(threads);
            (threads(&mut count) == 0).then_some(())?;
            Some(Self {
                call: mem::transmute::<*mut c_void, Call>(call),
                new_list: mem::transmute::<*mut c_void, NewList>(new_list),
                push: mem::transmute::<*mut c_void, Push>(push),
            })
        }
    }

    /// Calls an operator that works in place and returns nothing. `arguments` are all of its schema, in order.
    ///
    /// # Errors
    /// [`OpsError::Operator`]; libtorch writes its reason to the standard error output.
    ///
    /// # Safety
    /// The arguments have the number and the types of the operator's schema, and it returns nothing.
    pub(crate) unsafe fn call_in_place(
        &self,
        operator: &'static CStr,
        overload: &CStr,
        arguments: &[Argument<'_>],
    ) -> Result<(), OpsError> {
        let failed = || OpsError::Operator { operator: operator.to_string_lossy().into_owned() };
        let mut stack = Vec::with_capacity(arguments.len().max(1));
        for argument in arguments {
            stack.push(self.value(argument).ok_or_else(failed)?);
        }
        // SAFETY: the names are terminated; the stack holds what the schema asks for, by the caller's word, and owns its
        // handles, which the call takes over. Nothing is returned, so the stack is not written beyond its length.
        let status = unsafe { (self.call)(operator.as_ptr(), overload.as_ptr(), stack.as_mut_ptr(), ABI_VERSION) };
        if status == 0 { Ok(()) } else { Err(failed()) }
    }

    /// The stack's form of an argument, with handles of its own.
    fn value(&self, argument: &Argument<'_>) -> Option<Value> {
        match argument {
            Argument::Float(number) => Some(number.to_bits()),
            Argument::Bool(flag) => Some(in_lowest_byte(u8::from(*flag))),
            Argument::Absent => Some(0),
            Argument::Tensors(tensors) => {
                let mut list = ptr::null_mut();
                // SAFETY: `list` is a place for the new list's handle.
                (unsafe { (self.new_list)(tensors.len(), &mut list) } == 0).then_some(())?;
                for tensor in *tensors {
                    let mut owned = tensor.shallow_clone();
                    let handle = owned.as_mut_ptr() as usize as Value;
                    // The list owns the clone from here on.
                    mem::forget(owned);
                    // SAFETY: the list is live, and libtorch's handle of a tensor is what tch holds.
                    (unsafe { (self.push)(list, handle) } == 0).then_some(())?;
                }
                Some(list as usize as Value)
            }
        }
    }
}

/// Values narrower than 64 bits lie in the lowest bytes in memory order of the machine's integers.
fn in_lowest_byte(byte: u8) -> Value {
    Value::from(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_without_a_binding_is_reached() {
        let Some(dispatcher) = Dispatcher::get() else {
            eprintln!("SKIPPED: this libtorch has no stable dispatcher");
            return;
        };
        let targets = [Tensor::from_slice(&[1.0_f32, 2.0]), Tensor::from_slice(&[-3.0_f32])];
        let factors = [Tensor::from_slice(&[2.0_f32, 3.0]), Tensor::from_slice(&[0.5_f32])];
        let arguments = [Argument::Tensors(&targets), Argument::Tensors(&factors)];
        // SAFETY: the schema is (Tensor(a!)[] self, Tensor[] other) -> ().
        unsafe { dispatcher.call_in_place(c"aten::_foreach_mul_", c"List", &arguments) }.unwrap();
        assert_eq!(Vec::<f32>::try_from(&targets[0]).unwrap(), [2.0, 6.0]);
        assert_eq!(Vec::<f32>::try_from(&targets[1]).unwrap(), [-1.5]);
        assert_eq!(Vec::<f32>::try_from(&factors[0]).unwrap(), [2.0, 3.0]);
    }

    #[test]
    fn what_libtorch_refuses_is_an_error() {
        let Some(dispatcher) = Dispatcher::get() else { return };
        let targets = [Tensor::from_slice(&[1.0_f32, 2.0])];
        let arguments = [Argument::Tensors(&targets), Argument::Tensors(&[])];
        // SAFETY: as above; the lists' lengths differ, which the operator checks.
        let error = unsafe { dispatcher.call_in_place(c"aten::_foreach_mul_", c"List", &arguments) }.unwrap_err();
        assert!(error.to_string().contains("_foreach_mul_"), "{error}");
    }
}
