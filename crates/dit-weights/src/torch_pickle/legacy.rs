//! What PyTorch wrote before 1.6: pickles one after the other, then the storages.
//!
//! In order: a magic number, the format's version, a description of the machine, the object, the storages' keys, and for each
//! key the number of its elements (eight bytes) and their values. How large an element is, only the object's pickle tells, which
//! also refers to the storages that come after it: so it runs twice.

use std::collections::HashMap;

use super::machine::{self, Fault};
use super::value::{Id, Kind, Value, Values};
use super::{MAX_PICKLE_BYTES, rebuild::Storages};

/// Protocol 2, then the integer 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// The only version there ever was.
const VERSION: i64 = 1001;

/// Runs the pickles of such a file.
pub(super) fn read(bytes: &[u8]) -> Result<(Values, Id), Fault> {
    let mut at = MAGIC.len();
    let fault = |offset: usize, problem: &str| Fault { offset, problem: problem.to_owned() };
    let none = Storages::new();
    let version = next(bytes, &mut at, &none)?;
    if version.root().as_i64() != Some(VERSION) {
        return Err(fault(at, "its format is not version 1001"));
    }
    let system = next(bytes, &mut at, &none)?;
    if system.root().get("little_endian").and_then(Value::as_bool) != Some(true) {
        return Err(fault(at, "its numbers are not in little-endian order"));
    }
    let object = at;
    let (sizes, length) = machine::storage_sizes(part(bytes, at)).map_err(|found| moved(found, object))?;
    at += length;
    let keys = next(bytes, &mut at, &none)?;
    let mut storages = Storages::new();
    for key in keys.root().items() {
        let Kind::Str(key) = key.kind() else { return Err(fault(at, "a storage's key is not a string")) };
        let count = bytes.get(at..at + 8).and_then(|count| count.try_into().ok()).map(u64::from_le_bytes);
        let count = count.and_then(|count| usize::try_from(count).ok());
        let sized = sizes.get(key).zip(count);
        let (&(element, declared), count) =
            sized.ok_or_else(|| fault(at, "a storage is cut short, or used nowhere"))?;
        if count != declared {
            return Err(fault(at, "a storage has another size than the description says"));
        }
        let start = at + 8;
        let end = count.checked_mul(element).and_then(|len| start.checked_add(len)).filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| fault(at, "a storage is cut short"))?;
        storages.insert(key, start..end);
        at = end;
    }
    let (values, root, _) =
        machine::unpickle_first(part(bytes, object), &storages).map_err(|found| moved(found, object))?;
    Ok((values, root))
}

/// Element size and count of each storage, by key.
pub(super) type StorageSizes = HashMap<Box<str>, (usize, usize)>;

struct Pickle {
    values: Values,
    root: Id,
}

impl Pickle {
    fn root(&self) -> Value<'_> {
        Value::new(&self.values, self.root)
    }
}

/// Runs the pickle at `at`, which moves behind it.
fn next(bytes: &[u8], at: &mut usize, storages: &Storages<'_>) -> Result<Pickle, Fault> {
    let found = machine::unpickle_first(part(bytes, *at), storages);
    let (values, root, length) = found.map_err(|found| moved(found, *at))?;
    *at += length;
    Ok(Pickle { values, root })
}

/// Bytes from `at` on, no more than a pickle may have.
fn part(bytes: &[u8], at: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    &rest[..rest.len().min(MAX_PICKLE_BYTES)]
}

fn moved(fault: Fault, by: usize) -> Fault {
    Fault { offset: fault.offset + by, ..fault }
}
