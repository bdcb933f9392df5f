//! The header of a safetensors file: 8 bytes of length, then JSON that says where each tensor lies. Everything is checked here,
//! against the bytes that are really there, before any view exists.

use std::{collections::BTreeMap, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{Dtype, TensorInfo, source::numel};

/// Longest header accepted, in bytes, as in the format's own implementation.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes of the header's length, before the header.
pub(crate) const LENGTH_BYTES: usize = 8;
/// The entry that holds the metadata, and no tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// A checked header. Invariant: every range lies inside the file, holds exactly its tensor's elements, and the ranges follow
/// one another from the header's end to the file's end.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) infos: BTreeMap<String, TensorInfo>,
    /// Where each tensor of `infos` lies, in bytes from the file's start.
    pub(crate) ranges: BTreeMap<String, Range<usize>>,
    /// Tensors of an element type that this crate does not read, and that type's name.
    pub(crate) unsupported: BTreeMap<String, String>,
}

/// The JSON as written, unchecked.
#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                header.metadata = map.next_value::<Option<BTreeMap<String, String>>>()?.unwrap_or_default();
                continue;
            }
            let tensor = map.next_value()?;
            // A plain map would keep the last one silently, and what is loaded would depend on the reader.
            if header.tensors.insert(name.clone(), tensor).is_some() {
                return Err(A::Error::custom(format_args!("two tensors are named {name:?}")));
            }
        }
        Ok(header)
    }
}

impl Header {
    /// Reads and checks the header of `file`, the whole file's bytes. On failure: what is wrong.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, String> {
        let json = header_json(file)?;
        let raw: RawHeader =
            serde_json::from_slice(json).map_err(|error| format!("its header is not readable: {error}"))?;
        let data_start = LENGTH_BYTES + json.len();
        Self::check(raw, data_start, file.len() - data_start)
    }

    /// Checks `raw` against `data_len` bytes of values that begin at `data_start`.
    fn check(raw: RawHeader, data_start: usize, data_len: usize) -> Result<Self, String> {
        let mut tensors: Vec<(String, RawTensor)> = raw.tensors.into_iter().collect();
        // Stable: tensors without elements, which share their offsets, stay in the order of their names.
        tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let mut header = Self {
            metadata: raw.metadata,
            infos: BTreeMap::new(),
            ranges: BTreeMap::new(),
            unsupported: BTreeMap::new(),
        };
        let mut end = 0;
        for (name, RawTensor { dtype: dtype_name, shape, data_offsets: (start, stop) }) in tensors {
            let stored = StoredDtype::parse(&dtype_name)
                .ok_or_else(|| format!("tensor {name:?} has the unknown element type {dtype_name:?}"))?;
            if start < end {
                return Err(format!("tensor {name:?} overlaps another: it begins at byte {start}, before byte {end}"));
            }
            if start > end {
                return Err(format!(
                    "bytes {end} to {start} of the values belong to no tensor, before tensor {name:?}"
                ));
            }
            let needed = stored
                .byte_len(&shape)
                .ok_or_else(|| format!("tensor {name:?} of shape {shape:?} does not fill whole bytes in memory"))?;
            if stop.checked_sub(start) != Some(needed) {
                return Err(format!(
                    "tensor {name:?}, {dtype_name} of shape {shape:?}, needs {needed} bytes, its offsets are {start} to {stop}"
                ));
            }
            if stop > data_len {
                return Err(format!(
                    "it is cut short: tensor {name:?} ends at byte {stop} of the values, there are {data_len}"
                ));
            }
            end = stop;
            match stored.dtype() {
                Some(dtype) => {
                    header.ranges.insert(name.clone(), data_start + start..data_start + stop);
                    header.infos.insert(name, TensorInfo { dtype, shape });
                }
                None => {
                    header.unsupported.insert(name, dtype_name);
                }
            }
        }
        if end != data_len {
            return Err(format!("{} bytes follow the last tensor", data_len - end));
        }
        Ok(header)
    }
}

/// The JSON's bytes, if the length before them is possible.
fn header_json(file: &[u8]) -> Result<&[u8], String> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("it is cut short: {} bytes, not even the header's length", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!("its first 8 bytes ask for a header of {length} bytes; the limit is {MAX_HEADER}"));
    }
    usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| format!("it is cut short: the header is {length} bytes long, {} follow", rest.len()))
}

/// An element type that the format knows.
struct StoredDtype {
    bits: usize,
    dtype: Option<Dtype>,
}

impl StoredDtype {
    fn parse(name: &str) -> Option<Self> {
        let supported = |dtype: Dtype| Self { bits: 8 * dtype.size(), dtype: Some(dtype) };
        let unsupported = |bits| Self { bits, dtype: None };
        Some(match name {
            "F4" => unsupported(4),
            "F6_E2M3" | "F6_E3M2" => unsupported(6),
            "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => unsupported(8),
            "U16" => unsupported(16),
            "U32" => unsupported(32),
            "U64" | "C64" => unsupported(64),
            _ => supported(Dtype::ALL.into_iter().find(|&dtype| stored_name(dtype) == name)?),
        })
    }

    fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// Bytes of a tensor of `shape`; `None` where that overflows or is not whole.
    fn byte_len(&self, shape: &[usize]) -> Option<usize> {
        let bits = numel(shape)?.checked_mul(self.bits)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

/// The format's name for `dtype`.
pub(crate) fn stored_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "F64",
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::BF16 => "BF16",
        Dtype::I64 => "I64",
        Dtype::I32 => "I32",
        Dtype::I16 => "I16",
        Dtype::I8 => "I8",
        Dtype::U8 => "U8",
        Dtype::Bool => "BOOL",
    }
}
