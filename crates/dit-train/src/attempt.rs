//! What a run can do without: measurements and pictures, which only read the weights.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::ObserverError;

thread_local! {
    static ATTEMPTS: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread costs the run a measurement or a picture only, and is told as a warning. A program's panic hook
/// asks, which would else tell of the run's end.
pub fn panics_are_survived() -> bool {
    ATTEMPTS.get() > 0
}

/// Does what the run goes on without if it fails. Many of libtorch's operations panic where memory does not suffice.
///
/// What `work` changes must not matter after a panic.
pub(crate) fn attempt<T>(work: impl FnOnce() -> Result<T, ObserverError>) -> Result<T, ObserverError> {
    ATTEMPTS.set(ATTEMPTS.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    ATTEMPTS.set(ATTEMPTS.get() - 1);
    result.unwrap_or_else(|panic| Err(first_line(&*panic).into()))
}

/// What it says, without the call stack that libtorch appends.
fn first_line(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn panics_become_errors_of_one_line() {
        assert!(!panics_are_survived());
        let result = attempt(|| {
            assert!(panics_are_survived());
            // What no machine has.
            Ok(Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu)))
        });
        assert!(!panics_are_survived());
        let error = result.unwrap_err().to_string();
        assert!(error.contains("memory") && error.lines().count() == 1, "{error}");
        assert_eq!(attempt(|| Ok(3)).unwrap(), 3);
        assert_eq!(attempt::<()>(|| Err("no".into())).unwrap_err().to_string(), "no");
    }
}
