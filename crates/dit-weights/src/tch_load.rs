//! Between checkpoint files and libtorch.

use std::{collections::BTreeMap, sync::Mutex};

use dit_config::TensorSpec;
use tch::{Device, Kind, TchError, Tensor, nn::VarStore};

use crate::{Dtype, Error, TensorInfo, TensorSource, TensorView, check::check_tensors, non_finite::find_non_finite};

/// What to do about weights that are NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonFinite {
    /// Refuse them, naming every tensor concerned.
    Reject,
    /// Load them as they are: to look at a run that diverged.
    Keep,
}

/// Copies every tensor of `source` into the variable of the same name, strictly: names and shapes must be the same both ways.
/// The variables keep their element type and device, values are converted. Values go from the mapped file into the variables
/// without a copy in between, and the file's pages are released tensor by tensor.
///
/// Nothing is copied unless everything fits.
///
/// # Errors
/// [`Error::Mismatch`] with every difference, [`Error::NonFinite`], whatever reading `source` meets, or [`Error::Torch`].
pub fn load_into(vs: &mut VarStore, source: &dyn TensorSource, non_finite: NonFinite) -> Result<(), Error> {
    // A `BTreeMap`, so that messages come in one order.
    let mut variables: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
    let mut specs = Vec::with_capacity(variables.len());
    for (name, variable) in &variables {
        let shape = variable.size().into_iter().map(|extent| usize::try_from(extent).unwrap_or(0)).collect();
        specs.push(TensorSpec { name: name.clone(), shape });
    }
    check_tensors(source, &specs, "the model", |_| None)?;
    for (name, variable) in &variables {
        check_kind(name, variable, source)?;
    }
    if non_finite == NonFinite::Reject {
        let found = find_non_finite(source)?;
        if !found.is_empty() {
            return Err(Error::NonFinite { tensors: found });
        }
    }
    // Writing into a leaf that requires gradients is not to be recorded. A guard, not a closure: it survives a panic.
    let _guard = tch::no_grad_guard();
    for (name, variable) in &mut variables {
        source.prefetch(name);
        copy(name, &source.read(name)?, variable)?;
        source.release(name);
    }
    Ok(())
}

/// `copy_` would turn weights into integers without a word.
fn check_kind(name: &str, variable: &Tensor, source: &dyn TensorSource) -> Result<(), Error> {
    let kind = variable.f_kind().map_err(torch(name))?;
    match source.infos().get(name) {
        Some(info) if info.dtype.is_float() != is_float(kind) => {
            let message = format!("the file has {}, the model {kind:?}", info.dtype);
            Err(torch(name)(TchError::Kind(message)))
        }
        _ => Ok(()),
    }
}

/// Copies `view` into `variable`, which has its shape.
fn copy(name: &str, view: &TensorView, variable: &mut Tensor) -> Result<(), Error> {
    if view.numel() == 0 {
        return Ok(());
    }
    let size: Vec<i64> = view.shape().iter().map(|&extent| extent as i64).collect();
    let element = view.dtype().size();
    let data = view.data();
    let aligned: Vec<u64>;
    let start = if (data.as_ptr() as usize).is_multiple_of(element) {
        data.as_ptr()
    } else {
        // A file whose header does not end on a multiple of the element: libtorch reads whole elements.
        aligned = aligned_copy(data);
        aligned.as_ptr().cast()
    };
    // SAFETY: `start` is aligned to the element and points to `numel` elements (the invariant of `TensorView`), which stay
    // borrowed until after the copy; the tensor made here is contiguous, only read from, and dropped in this function.
    let values = unsafe { Tensor::f_from_blob(start, &size, &[], kind_of(view.dtype()), Device::Cpu) };
    let values = values.map_err(torch(name))?;
    variable.f_copy_(&values).map_err(torch(name))
}

/// The bytes of `data` in memory that is aligned to 8.
fn aligned_copy(data: &[u8]) -> Vec<u64> {
    let (words, tail) = data.as_chunks::<8>();
    let mut copy: Vec<u64> = words.iter().map(|&word| u64::from_ne_bytes(word)).collect();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    copy.push(u64::from_ne_bytes(last));
    copy
}

fn torch(name: &str) -> impl FnOnce(TchError) -> Error {
    let name = name.to_owned();
    move |source| Error::Torch { name, source }
}

/// libtorch's name for `dtype`.
pub fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::Bool => Kind::Bool,
    }
}

/// Copies one tensor of `source` into a new libtorch tensor of the same element type, on the CPU.
///
/// # Errors
/// Whatever reading `source` meets, or [`Error::Torch`].
pub fn to_tensor(source: &dyn TensorSource, name: &str) -> Result<Tensor, Error> {
    let view = source.read(name)?;
    tensor_of(name, &view, kind_of(view.dtype()), Device::Cpu)
}

/// Copies `view`, a tensor of floating-point numbers, into a new libtorch tensor of `kind` on `device`, its values converted;
/// `name` is for messages.
///
/// # Errors
/// [`Error::Torch`]; the same where floating-point numbers were to become integers, or integers anything else.
pub fn tensor_of(name: &str, view: &TensorView, kind: Kind, device: Device) -> Result<Tensor, Error> {
    if kind != kind_of(view.dtype()) && !(view.dtype().is_float() && is_float(kind)) {
        let message = format!("the file has {}, the model {kind:?}", view.dtype());
        return Err(torch(name)(TchError::Kind(message)));
    }
    let size: Vec<i64> = view.shape().iter().map(|&extent| extent as i64).collect();
    let mut tensor = Tensor::f_empty(size, (kind, device)).map_err(torch(name))?;
    copy(name, view, &mut tensor)?;
    Ok(tensor)
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16)
}

/// libtorch tensors as a source: what [`write_safetensors`](crate::write_safetensors) writes of a model. Values are taken from
/// their device one tensor at a time, when they are read; the tensors are shared, not copied.
#[derive(Debug)]
pub struct TchSource {
    infos: BTreeMap<String, TensorInfo>,
    // A `Tensor` may be sent to another thread but not shared between two.
    tensors: Mutex<BTreeMap<String, Tensor>>,
}

impl TchSource {
    /// A source over `tensors`.
    ///
    /// # Errors
    /// [`Error::Torch`] for an element type that files do not have (complex, quantised), [`Error::DuplicateTensor`].
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self, Error> {
        let mut infos = BTreeMap::new();
        let mut shared = BTreeMap::new();
        for (name, tensor) in tensors {
            let kind = tensor.f_kind().map_err(torch(&name))?;
            let dtype = Dtype::ALL.into_iter().find(|&dtype| kind_of(dtype) == kind);
            let unsupported = || torch(&name)(TchError::Kind(format!("{kind:?} cannot be written")));
            let dtype = dtype.ok_or_else(unsupported)?;
            let shape = tensor.size().into_iter().map(|extent| usize::try_from(extent).unwrap_or(0)).collect();
            infos.insert(name.clone(), TensorInfo { dtype, shape });
            if shared.insert(name.clone(), tensor.detach()).is_some() {
                return Err(Error::DuplicateTensor { name });
            }
        }
        Ok(Self { infos, tensors: Mutex::new(shared) })
    }

    /// The variables of `vs`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_var_store(vs: &VarStore) -> Result<Self, Error> {
        Self::new(vs.variables())
    }
}

impl TensorSource for TchSource {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let missing = || Error::NoSuchTensor { name: name.to_owned() };
        let TensorInfo { dtype, shape } = self.infos.get(name).cloned().ok_or_else(missing)?;
        // A thread that panicked while it held the lock changed nothing: tensors are only read here.
        let tensors = self.tensors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let tensor = tensors.get(name).ok_or_else(missing)?;
        let tensor = tensor.f_to_device(Device::Cpu).and_then(|tensor| tensor.f_contiguous()).map_err(torch(name))?;
        let numel = tensor.numel();
        let mut data = vec![0; numel * dtype.size()];
        if numel > 0 {
            tensor.f_copy_data_u8(&mut data, numel).map_err(torch(name))?;
        }
        TensorView::new(dtype, shape, data)
    }
}
