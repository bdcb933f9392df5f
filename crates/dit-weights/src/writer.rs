//! Writing safetensors, one tensor at a time.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Write},
    path::Path,
};

use dit_files::AtomicFile;
use serde_json::json;

use crate::{
    Error, TensorInfo, TensorSource,
    safetensors_header::{LENGTH_BYTES, METADATA, stored_name},
};

/// Writes every tensor of `source` and `metadata` to `path`. The header goes first, then tensor by tensor, so that memory
/// holds one tensor at a time; the file appears under its name only when it is whole and on disk.
///
/// The bytes depend on nothing but the tensors and the metadata: wide element types come first (which aligns every tensor to its
/// element), then the order is that of names.
///
/// # Errors
/// [`Error::Write`], whatever reading `source` meets, [`Error::DataLength`] where a tensor is not as `source` described it, or
/// [`Error::ReservedName`] where one is named `__metadata__`, which the format keeps for itself. `path` is then as it was before.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    write_safetensors_with(path.as_ref(), source, metadata, &mut |_| {})
}

/// [`write_safetensors`], calling `progress` after each tensor with the bytes of values written so far.
///
/// # Errors
/// As [`write_safetensors`].
pub(crate) fn write_safetensors_with(
    path: &Path,
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let mut file = AtomicFile::create(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.file_mut());
    write_to(&mut out, path, source, metadata, progress)?;
    out.flush().map_err(Error::writing(path))?;
    drop(out);
    file.commit().map_err(Error::writing(path))
}

/// Writes the file's bytes to `out`; `path` is for messages.
fn write_to(
    out: &mut dyn Write,
    path: &Path,
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let order = file_order(source.infos());
    let header = header_bytes(&order, metadata)?;
    out.write_all(&header).map_err(Error::writing(path))?;
    let mut written = 0;
    for (name, info) in order {
        source.prefetch(name);
        let tensor = source.read(name)?;
        if tensor.info() != *info {
            let TensorInfo { dtype, shape } = info.clone();
            return Err(Error::DataLength { dtype, shape, actual: tensor.data().len() });
        }
        out.write_all(tensor.data()).map_err(Error::writing(path))?;
        written += tensor.data().len() as u64;
        drop(tensor);
        source.release(name);
        progress(written);
    }
    Ok(())
}

/// The order of tensors in a file: wide elements first, then by name.
fn file_order(infos: &BTreeMap<String, TensorInfo>) -> Vec<(&str, &TensorInfo)> {
    let mut order: Vec<_> = infos.iter().map(|(name, info)| (name.as_str(), info)).collect();
    order.sort_by_key(|(_, info)| std::cmp::Reverse(info.dtype.size()));
    order
}

/// The length, the JSON, and spaces up to a multiple of 8 bytes.
fn header_bytes(order: &[(&str, &TensorInfo)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, Error> {
    let mut entries = Vec::with_capacity(order.len() + 1);
    if !metadata.is_empty() {
        entries.push(format!("\"{METADATA}\":{}", json!(metadata)));
    }
    let mut start = 0usize;
    for (name, info) in order {
        if *name == METADATA {
            return Err(Error::ReservedName { name: (*name).to_owned() });
        }
        let too_large = || Error::DataLength { dtype: info.dtype, shape: info.shape.clone(), actual: 0 };
        let end = info.byte_len().and_then(|bytes| start.checked_add(bytes)).ok_or_else(too_large)?;
        let tensor = json!({"dtype": stored_name(info.dtype), "shape": info.shape, "data_offsets": [start, end]});
        entries.push(format!("{}:{tensor}", json!(name)));
        start = end;
    }
    let mut json = format!("{{{}}}", entries.join(",")).into_bytes();
    json.resize(json.len().next_multiple_of(LENGTH_BYTES), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, MemorySource, SafetensorsFile, TensorView};

    fn source() -> MemorySource {
        let half = TensorView::new(Dtype::F16, vec![3], vec![1, 2, 3, 4, 5, 6]).unwrap();
        let wide = TensorView::from_f32(vec![2, 2], &[1.0, -2.0, 0.5, f32::MIN_POSITIVE]).unwrap();
        let flag = TensorView::new(Dtype::Bool, vec![1], vec![1]).unwrap();
        let none = TensorView::from_f32(vec![0, 4], &[]).unwrap();
        let scalar = TensorView::new(Dtype::I64, vec![], 7i64.to_le_bytes().to_vec()).unwrap();
        MemorySource::from_iter([("a", half), ("b \"quoted\"", wide), ("c", flag), ("d", none), ("e", scalar)])
    }

    fn bytes_of(source: &dyn TensorSource, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        let mut out = Vec::new();
        write_to(&mut out, Path::new("memory"), source, metadata, &mut |_| {}).unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read_back_and_the_formats_own_crate_agrees() {
        let metadata = BTreeMap::from([("k".to_owned(), "line\nbreak".to_owned()), ("a".to_owned(), "ü".to_owned())]);
        let source = source();
        let bytes = bytes_of(&source, &metadata);
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ours = SafetensorsFile::from_bytes("memory", bytes.clone()).unwrap();
        assert_eq!(ours.infos(), source.infos());
        assert_eq!(ours.metadata(), &metadata);
        for (name, info) in source.infos() {
            let view = ours.read(name).unwrap();
            assert_eq!(view, source.read(name).unwrap(), "{name}");
            let their_view = theirs.tensor(name).unwrap();
            assert_eq!((their_view.shape(), their_view.data()), (&info.shape[..], view.data()), "{name}");
            let offset = view.data().as_ptr() as usize - bytes_start(&ours, "e");
            assert!(offset.is_multiple_of(info.dtype.size()), "{name} lies at {offset}");
        }
    }

    #[track_caller]
    fn check_name(name: &str, refused: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let source = MemorySource::from_iter([(name, TensorView::from_f32(vec![1], &[1.0]).unwrap())]);
        for metadata in [BTreeMap::new(), BTreeMap::from([("k".to_owned(), "v".to_owned())])] {
            let result = write_safetensors(&path, &source, &metadata);
            if refused {
                let error = result.unwrap_err();
                assert!(matches!(&error, Error::ReservedName { name: told } if told == name), "{error}");
                assert!(!path.exists());
            } else {
                result.unwrap();
                assert_eq!(SafetensorsFile::open(&path).unwrap().infos(), source.infos());
            }
        }
    }

    #[test]
    fn the_metadatas_name_is_no_tensors() {
        check_name("__metadata__", true);
        check_name("__metadata", false);
        check_name("a.__metadata__", false);
        check_name("", false);
    }

    #[track_caller]
    fn check_without_elements(shape: [usize; 3], exists: bool) {
        let tensor = TensorView::from_f32(shape.to_vec(), &[]);
        assert_eq!(tensor.is_ok(), exists, "{shape:?}");
        let Ok(tensor) = tensor else { return };
        let bytes = bytes_of(&MemorySource::from_iter([("a", tensor.clone())]), &BTreeMap::new());
        assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok(), "{shape:?}");
        assert_eq!(SafetensorsFile::from_bytes("memory", bytes).unwrap().read("a").unwrap(), tensor);
    }

    #[test]
    fn a_shape_that_can_be_had_can_be_written() {
        const HUGE: usize = usize::MAX;
        check_without_elements([0, HUGE, HUGE], true);
        check_without_elements([HUGE, 0, HUGE], true);
        check_without_elements([1 << 62, 2, 0], true);
        check_without_elements([1 << 62, 4, 0], false);
        check_without_elements([HUGE, HUGE, 0], false);
    }

    /// Where the first tensor of the file lies in memory.
    fn bytes_start(file: &SafetensorsFile, first: &str) -> usize {
        file.read(first).unwrap().data().as_ptr() as usize
    }

    /// Takes `room` bytes, then reports a full disk.
    struct FullAfter {
        room: usize,
    }

    impl Write for FullAfter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.room == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_wherever_it_fills() {
        let source = source();
        let whole = bytes_of(&source, &BTreeMap::new()).len();
        for room in 0..whole {
            let result = write_to(&mut FullAfter { room }, Path::new("x"), &source, &BTreeMap::new(), &mut |_| {});
            assert!(matches!(result, Err(Error::Write(_))), "room for {room} of {whole}");
        }
    }
}
