use std::{cell::RefCell, sync::Arc};

use tch::Tensor;

/// What went into a named [`Linear`](crate::Linear), and what came out.
#[derive(Debug)]
pub struct Observed {
    /// As [`Linear::named`](crate::Linear::named) was told.
    pub name: Arc<str>,
    /// (…, inputs).
    pub input: Tensor,
    /// (…, outputs), after the activation if there is one.
    pub output: Tensor,
}

thread_local! {
    static SEEN: RefCell<Option<Vec<Observed>>> = const { RefCell::new(None) };
}

/// What `compute` gives, and what passed the named Linears that this thread called meanwhile, first to last: for looking into a
/// network whose result is wrong. All of it stays in memory.
///
/// One within another takes over until it ends.
pub fn observe_linears<T>(compute: impl FnOnce() -> T) -> (T, Vec<Observed>) {
    /// Puts back what was there, also where `compute` panics.
    struct Restore(Option<Vec<Observed>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SEEN.set(self.0.take());
        }
    }
    let _restore = Restore(SEEN.replace(Some(Vec::new())));
    let result = compute();
    (result, SEEN.take().unwrap_or_default())
}

/// Tells whoever observes.
pub(crate) fn tell(name: Option<&Arc<str>>, input: &Tensor, output: &Tensor) {
    let Some(name) = name else { return };
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            seen.push(Observed {
                name: Arc::clone(name),
                input: input.shallow_clone(),
                output: output.shallow_clone(),
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::Linear;

    #[test]
    fn named_linears_are_seen_while_somebody_observes() {
        let weight = || Tensor::ones([3, 2], (Kind::Float, Device::Cpu));
        let [first, second] = ["first", "second"].map(|name| Linear::new(weight(), None).named(name));
        let nameless = Linear::new(weight(), None);
        let x = Tensor::ones([4, 2], (Kind::Float, Device::Cpu));
        let _unobserved = second.forward(&x);
        let (result, seen) = observe_linears(|| {
            let ((), within) = observe_linears(|| drop(second.forward_gelu(&x)));
            assert_eq!(within.len(), 1);
            let _nameless = nameless.forward(&x);
            first.forward(&x)
        });
        let [Observed { name, input, output }] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((&**name, input), ("first", &x));
        assert_eq!(output, &result);
        assert!(observe_linears(|| ()).1.is_empty());
    }

    #[test]
    fn a_panic_ends_observing() {
        let caught = std::panic::catch_unwind(|| observe_linears(|| panic!("as it should")));
        assert!(caught.is_err());
        assert!(SEEN.with_borrow(Option::is_none));
    }
}
