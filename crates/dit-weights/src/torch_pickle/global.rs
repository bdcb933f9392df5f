//! The allow-list: the classes and functions of a pickle whose meaning the reader knows.

use crate::Dtype;

/// A class, function or constant, by its full name.
#[derive(Debug)]
pub(super) struct Global {
    pub(super) name: Box<str>,
    pub(super) known: Option<Known>,
}

/// The globals whose meaning the reader knows. It acts out their effect on values; no Python code is involved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// `OrderedDict` and `defaultdict`: to a reader, plain dictionaries.
    Dict,
    /// `set` and `frozenset`.
    Set,
    /// `torch.Size`: a tuple of integers.
    Size,
    /// `torch._utils._rebuild_tensor(storage, offset, size, stride)` and `_rebuild_tensor_v2(… , requires_grad, hooks)`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3(… , requires_grad, hooks, dtype)`, over an untyped storage.
    RebuildTensorV3,
    /// `torch._utils._rebuild_parameter(tensor, …)`, with state or without.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2(rebuild, type, arguments, state)`.
    RebuildFromType,
    /// `torch.FloatStorage` and the like.
    Storage(Dtype),
    /// `torch.storage.UntypedStorage`.
    UntypedStorage,
    /// `torch.float32` and the like.
    Dtype(Dtype),
}

impl Known {
    /// The allow-list.
    pub(super) fn of(name: &str) -> Option<Self> {
        let known = match name {
            "collections.OrderedDict" | "collections.defaultdict" => Self::Dict,
            "builtins.set" | "__builtin__.set" => Self::Set,
            "builtins.frozenset" | "__builtin__.frozenset" => Self::Set,
            "torch.Size" => Self::Size,
            "torch._utils._rebuild_tensor" => Self::RebuildTensor,
            "torch._utils._rebuild_tensor_v2" => Self::RebuildTensor,
            "torch._utils._rebuild_tensor_v3" => Self::RebuildTensorV3,
            "torch._utils._rebuild_parameter" => Self::RebuildParameter,
            "torch._utils._rebuild_parameter_with_state" => Self::RebuildParameter,
            "torch._tensor._rebuild_from_type_v2" => Self::RebuildFromType,
            "torch.UntypedStorage" | "torch.storage.UntypedStorage" => Self::UntypedStorage,
            _ => return Self::of_storage(name).or_else(|| Self::of_dtype(name)),
        };
        Some(known)
    }

    fn of_storage(name: &str) -> Option<Self> {
        let class = name.strip_prefix("torch.cuda.").or_else(|| name.strip_prefix("torch."))?;
        let dtype = match class.strip_suffix("Storage")? {
            "Double" => Dtype::F64,
            "Float" => Dtype::F32,
            "Half" => Dtype::F16,
            "BFloat16" => Dtype::BF16,
            "Long" => Dtype::I64,
            "Int" => Dtype::I32,
            "Short" => Dtype::I16,
            "Char" => Dtype::I8,
            "Byte" => Dtype::U8,
            "Bool" => Dtype::Bool,
            _ => return None,
        };
        Some(Self::Storage(dtype))
    }

    fn of_dtype(name: &str) -> Option<Self> {
        let dtype = match name.strip_prefix("torch.")? {
            "float64" => Dtype::F64,
            "float32" => Dtype::F32,
            "float16" => Dtype::F16,
            "bfloat16" => Dtype::BF16,
            "int64" => Dtype::I64,
            "int32" => Dtype::I32,
            "int16" => Dtype::I16,
            "int8" => Dtype::I8,
            "uint8" => Dtype::U8,
            "bool" => Dtype::Bool,
            _ => return None,
        };
        Some(Self::Dtype(dtype))
    }
}
