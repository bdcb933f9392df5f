//! A checkpoint's tensors on their way into a model.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use dit_config::TensorSpec;
use dit_ops::{Kernels, Linear, StoredWeight};
use dit_weights::{Error, Mismatch, TensorSource, TensorView, check_tensors, count_non_finite, kind_of, tensor_of};
use tch::{Device, Kind, Tensor};

/// Gives a model under construction its tensors, each taken from the source once: looked through for NaN and infinities, converted,
/// and packed where [`Kernels`] pack, while its pages are at hand; then they are released. What is packed is read in one pass, all
/// else is converted in one and looked through in another.
///
/// Nothing fails on the way. What cannot be read, or not be brought to the device, is an empty tensor on the CPU and remembered, and
/// [`finish`](Self::finish) tells.
pub(crate) struct Loader<'a> {
    source: &'a dyn TensorSource,
    /// What the model is, for messages.
    expected: &'a str,
    device: Device,
    kind: Kind,
    pub(crate) kernels: Kernels,
    found: RefCell<Found>,
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source: _, expected, device, kind, kernels, found } = self;
        let found = found.borrow();
        write!(f, "Loader({expected}, {device:?}, {kind:?}, {kernels:?}, {} tensors read)", found.taken.len())
    }
}

#[derive(Default)]
struct Found {
    /// What was asked for.
    taken: BTreeSet<String>,
    /// How many values of a tensor are NaN or infinite.
    non_finite: BTreeMap<String, usize>,
    /// The first failure; nothing is read after it.
    error: Option<Error>,
}

impl<'a> Loader<'a> {
    /// A loader of a model with exactly the tensors `specs`, named `expected` in messages.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where `source` has others.
    pub(crate) fn new(
        source: &'a dyn TensorSource,
        (specs, expected): (&[TensorSpec], &'a str),
        device: Device,
        kind: Kind,
        kernels: Kernels,
    ) -> Result<Self, Error> {
        check_tensors(source, specs, expected, |_| None)?;
        Ok(Self { source, expected, device, kind, kernels, found: RefCell::default() })
    }

    /// The tensor `name`.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Tensor {
        self.read(name, shape, |view| {
            let tensor = tensor_of(name, view, self.kind, self.device)?;
            Ok((tensor, count_non_finite(view)))
        })
        .unwrap_or_else(|| self.nothing())
    }

    /// The Linear of `name`.weight and `name`.bias in the form that `kernels` want.
    pub(crate) fn linear(&self, name: &str, inputs: usize, outputs: usize, kernels: Kernels) -> Linear {
        let bias = self.tensor(&format!("{name}.bias"), &[outputs]);
        let name = format!("{name}.weight");
        let shape = [outputs, inputs];
        self.read(&name, &shape, |view| {
            // Files are little-endian.
            let stored = (self.device == Device::Cpu && cfg!(target_endian = "little"))
                .then(|| StoredWeight::new(kind_of(view.dtype()), view.data(), outputs, inputs))
                .flatten();
            let packed = stored.and_then(|stored| Linear::of_stored(stored, Some(&bias), self.kind, kernels));
            if let Some(packed) = packed {
                return Ok(packed);
            }
            let weight = tensor_of(&name, view, self.kind, self.device)?;
            let mut linear = Linear::new(weight, Some(bias.shallow_clone()));
            linear.optimize(kernels);
            Ok((linear, count_non_finite(view)))
        })
        .unwrap_or_else(|| Linear::new(self.nothing(), Some(bias)))
    }

    /// What `make` makes of the tensor `name`, and its number of values that are not finite; none after a failure.
    fn read<T>(
        &self,
        name: &str,
        shape: &[usize],
        make: impl FnOnce(&TensorView<'_>) -> Result<(T, usize), Error>,
    ) -> Option<T> {
        let mut found = self.found.borrow_mut();
        if found.error.is_some() {
            return None;
        }
        self.source.prefetch(name);
        let made = self.source.read(name).and_then(|view| match view.shape() == shape {
            true => make(&view),
            false => {
                let wanted = TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
                Err(self.mismatch(Mismatch { misshaped: vec![(wanted, view.shape().to_vec())], ..Mismatch::default() }))
            }
        });
        self.source.release(name);
        match made {
            Ok((made, non_finite)) => {
                found.taken.insert(name.to_owned());
                if non_finite > 0 {
                    found.non_finite.insert(name.to_owned(), non_finite);
                }
                Some(made)
            }
            Err(error) => {
                found.error = Some(error);
                None
            }
        }
    }

    fn mismatch(&self, found: Mismatch) -> Error {
        Error::Mismatch(Box::new(Mismatch { expected: self.expected.to_owned(), ..found }))
    }

    /// `value`, which is no tensor of the checkpoint but computed, on the model's device; `name` is for messages.
    pub(crate) fn constant(&self, name: &str, value: &Tensor) -> Tensor {
        let mut found = self.found.borrow_mut();
        if found.error.is_some() {
            return self.nothing();
        }
        value.f_to_device(self.device).unwrap_or_else(|source| {
            found.error = Some(Error::Torch { name: name.to_owned(), source });
            self.nothing()
        })
    }

    /// In place of a tensor after a failure, which may be that the device takes none.
    fn nothing(&self) -> Tensor {
        Tensor::empty([0], (self.kind, Device::Cpu))
    }

    /// Whether what was built is the checkpoint's model.
    ///
    /// # Errors
    /// The first failure to read; [`Error::NonFinite`] with all tensors concerned; [`Error::Mismatch`] with those that the
    /// model did not ask for.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Found { taken, non_finite, error } = self.found.take();
        if let Some(error) = error {
            return Err(error);
        }
        if !non_finite.is_empty() {
            return Err(Error::NonFinite { tensors: non_finite.into_iter().collect() });
        }
        let left = self.source.infos().iter().filter(|(name, _)| !taken.contains(*name));
        let left: Vec<TensorSpec> =
            left.map(|(name, info)| TensorSpec { name: name.clone(), shape: info.shape.clone() }).collect();
        match left.is_empty() {
            true => Ok(()),
            false => Err(self.mismatch(Mismatch { unexpected: left, ..Mismatch::default() })),
        }
    }
}
