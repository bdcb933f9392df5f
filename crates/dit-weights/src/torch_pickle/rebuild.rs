//! What the calls in a checkpoint's pickle mean, acted out on values.

use std::collections::HashMap;
use std::ops::Range;

use super::global::Known;
use super::legacy::StorageSizes;
use super::tensor::StridedTensor;
use super::value::{DictNode, Id, Node, StorageNode, Values};
use crate::Dtype;

/// Where the file holds each storage, by its key.
pub(super) type Storages<'a> = HashMap<&'a str, Range<usize>>;

/// The object behind a persistent id. PyTorch has one kind: `("storage", class, key, device, number of elements)`.
/// Any other is opaque.
pub(super) fn persistent(values: &mut Values, pid: Id, storages: &Storages<'_>) -> Result<Id, String> {
    // Before PyTorch 1.6 a sixth value followed: of which storage this one was a view. There were none but in the oldest files.
    let (tag, class, key, numel) = match values.sequence(pid) {
        Some(&[tag, class, key, _device, numel]) => (tag, class, key, numel),
        Some(&[tag, class, key, _device, numel, view]) if matches!(values.node(view), Node::None) => {
            (tag, class, key, numel)
        }
        _ => return values.push_opaque(pid, pid),
    };
    if !matches!(values.node(tag), Node::Str(tag) if &**tag == "storage") {
        return values.push_opaque(pid, pid);
    }
    let (Node::Global(class_global), Node::Str(key)) = (values.node(class), values.node(key)) else {
        return Err("a storage has no class or no key".into());
    };
    let dtype = match class_global.known {
        Some(Known::Storage(dtype)) => Some(dtype),
        Some(Known::UntypedStorage) => None,
        // Elements of a type that this reader does not know: complex, quantised, …
        _ => return values.push_opaque(class, pid),
    };
    let bytes = storages.get(&**key).ok_or_else(|| format!("storage {key:?} is not in the archive"))?.clone();
    let declared = index(values, numel, "a storage's size")?;
    if declared.checked_mul(dtype.map_or(1, Dtype::size)) != Some(bytes.len()) {
        return Err(format!(
            "storage {key:?} should have {declared} elements ({}), but the archive holds {} bytes of it",
            class_global.name,
            bytes.len()
        ));
    }
    values.push(Node::Storage(StorageNode { dtype, bytes }))
}

/// Notes the key, element size and number of elements that a persistent id names, where it is a storage's.
pub(super) fn note_storage(values: &Values, pid: Id, sizes: &mut StorageSizes) -> Result<(), String> {
    let Some(&[_tag, class, key, _device, numel, ..]) = values.sequence(pid) else { return Ok(()) };
    let (Node::Global(class), Node::Str(key)) = (values.node(class), values.node(key)) else { return Ok(()) };
    if let Some(Known::Storage(dtype)) = class.known {
        sizes.insert(key.clone(), (dtype.size(), index(values, numel, "a storage's size")?));
    }
    Ok(())
}

/// The result of calling `callable`: what the allow-list says of it, else opaque.
pub(super) fn call(values: &mut Values, callable: Id, arguments: Id) -> Result<Id, String> {
    let known = match values.node(callable) {
        Node::Global(global) => global.known,
        _ => None,
    };
    let Some(known) = known else {
        return values.push_opaque(callable, arguments);
    };
    let given = values.sequence(arguments).ok_or("a call's arguments are not a tuple")?;
    match known {
        Known::Dict => {
            // Python 2 gives the entries as a list of pairs; Python 3 adds them afterwards. `defaultdict` gives its factory.
            let pairs = first_sequence(values, given).to_vec();
            dict(values, &pairs)
        }
        Known::Set => {
            let items = first_sequence(values, given).to_vec();
            values.charge(items.len())?;
            values.push(Node::Set(items))
        }
        Known::Size => match given {
            [sizes] if values.sequence(*sizes).is_some() => Ok(*sizes),
            _ => Err("torch.Size is not given a tuple".into()),
        },
        Known::RebuildTensor => match *given {
            [storage, offset, size, stride, ..] => tensor(values, storage, offset, size, stride, None),
            _ => Err("a tensor lacks its storage, offset, size or stride".into()),
        },
        Known::RebuildTensorV3 => match *given {
            [storage, offset, size, stride, _grad, _hooks, dtype, ..] => {
                tensor(values, storage, offset, size, stride, Some(dtype))
            }
            _ => Err("a tensor lacks its storage, offset, size, stride or dtype".into()),
        },
        Known::RebuildParameter => match given {
            // A parameter is its tensor: whether it asks for gradients is not a matter of the file.
            [data, ..] => Ok(*data),
            _ => Err("a parameter lacks its tensor".into()),
        },
        Known::RebuildFromType => match *given {
            // Never nested in files that PyTorch writes, and so never deeper than this one call.
            [rebuild, _class, inner, _state] if !is_rebuild_from_type(values, rebuild) => call(values, rebuild, inner),
            _ => Err("a tensor subclass is not rebuilt from a tensor".into()),
        },
        Known::Storage(_) | Known::UntypedStorage | Known::Dtype(_) => values.push_opaque(callable, arguments),
    }
}

fn is_rebuild_from_type(values: &Values, id: Id) -> bool {
    matches!(values.node(id), Node::Global(global) if global.known == Some(Known::RebuildFromType))
}

/// The first argument, if it is a list or tuple; else nothing.
fn first_sequence<'v>(values: &'v Values, arguments: &[Id]) -> &'v [Id] {
    let first = arguments.first().and_then(|&id| values.sequence(id));
    first.unwrap_or_default()
}

fn dict(values: &mut Values, pairs: &[Id]) -> Result<Id, String> {
    let mut entries = Vec::with_capacity(pairs.len());
    for &pair in pairs {
        match values.sequence(pair) {
            Some(&[key, value]) => entries.push((key, value)),
            _ => return Err("a dictionary is made from what are not pairs".into()),
        }
    }
    values.charge(entries.len())?;
    let state = None;
    values.push(Node::Dict(Box::new(DictNode { entries, state })))
}

fn tensor(values: &mut Values, storage: Id, offset: Id, size: Id, stride: Id, dtype: Option<Id>) -> Result<Id, String> {
    let node = match values.node(storage) {
        Node::Storage(node) => node,
        // A storage of unknown elements makes a tensor of unknown elements.
        Node::Opaque(_) => return values.push_opaque(storage, size),
        _ => return Err("a tensor's storage is not a storage".into()),
    };
    let dtype = match dtype {
        None => node.dtype.ok_or("an untyped storage does not say what its elements are")?,
        Some(dtype) => match values.node(dtype) {
            Node::Global(global) => match global.known {
                Some(Known::Dtype(dtype)) => dtype,
                _ => return values.push_opaque(dtype, size),
            },
            _ => return Err("a tensor's dtype is not a dtype".into()),
        },
    };
    let shape = indices(values, size, "a tensor's shape")?;
    let strides = indices(values, stride, "a tensor's strides")?;
    let offset = index(values, offset, "a tensor's offset")?;
    let made = StridedTensor::new(node, dtype, offset, shape, strides)?;
    values.charge(made.info().shape.len())?;
    values.push(Node::Tensor(Box::new(made)))
}

fn indices(values: &Values, id: Id, what: &str) -> Result<Vec<usize>, String> {
    let items = values.sequence(id);
    let items = items.ok_or_else(|| format!("{what} is not a tuple"))?;
    items.iter().map(|&id| index(values, id, what)).collect()
}

fn index(values: &Values, id: Id, what: &str) -> Result<usize, String> {
    match values.node(id) {
        Node::Int(value) => usize::try_from(*value).map_err(|_| format!("{what} is {value}, which is out of range")),
        _ => Err(format!("{what} is not an integer")),
    }
}
