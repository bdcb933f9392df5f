//! Writes state dicts that Python's `torch.load(FILE, weights_only=True)` opens.

mod zip;

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use self::zip::ZipWriter;
use dit_files::AtomicFile;

use crate::{Dtype, Error, TensorView};

/// Writes named tensors as a PyTorch checkpoint: an `OrderedDict` of contiguous CPU tensors, in the order given.
///
/// Tensors are taken from the iterator one by one and written at once, so that no more than one need be in memory. The
/// file appears whole or not at all. Equal tensors make equal files.
///
/// # Errors
/// [`Error::Io`], [`Error::DuplicateTensor`], and whatever error the iterator yields. `path` is then as it was.
///
/// # Example
/// ```
/// use dit_weights::{TensorSource, TensorView, TorchFile, torch_save};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("tiny.pt");
/// let bias = TensorView::from_f32(vec![2], &[0.5, -1.0])?;
/// torch_save::write_state_dict(&path, [Ok(("bias".to_owned(), bias.clone()))])?;
///
/// let file = TorchFile::open(&path)?;
/// assert_eq!(file.state_dict("")?.read("bias")?, bias);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_state_dict<'a>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = Result<(String, TensorView<'a>), Error>>,
) -> Result<(), Error> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    write_archive(path, BufWriter::new(file.file_mut()), tensors)?;
    file.commit().map_err(Error::writing(path))
}

fn write_archive<'a>(
    path: &Path,
    out: impl Write,
    tensors: impl IntoIterator<Item = Result<(String, TensorView<'a>), Error>>,
) -> Result<(), Error> {
    let mut zip = ZipWriter::new(out);
    let mut pickle = Pickle::new();
    let mut names = HashSet::new();
    for (key, tensor) in tensors.into_iter().enumerate() {
        let (name, view) = tensor?;
        if !names.insert(name.clone()) {
            return Err(Error::DuplicateTensor { name });
        }
        let key = key.to_string();
        pickle
            .tensor(&name, &key, &view)
            .and_then(|()| zip.entry(&format!("archive/data/{key}"), view.data()))
            .map_err(Error::writing(path))?;
    }
    // The pickle comes last, since it is known last; readers find it through the directory.
    zip.entry("archive/data.pkl", &pickle.finish())
        .and_then(|()| zip.entry("archive/byteorder", b"little"))
        .and_then(|()| zip.entry("archive/version", b"3\n"))
        .and_then(|()| zip.finish()?.flush())
        .map_err(Error::writing(path))
}

/// A protocol 2 pickle of an `OrderedDict` of tensors.
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        // Protocol 2; OrderedDict(); mark: entries follow.
        Self(b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec())
    }

    fn finish(mut self) -> Vec<u8> {
        // Set the entries; stop.
        self.0.extend(b"u.");
        self.0
    }

    /// An entry whose value is `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`, its storage given
    /// by the persistent id `("storage", class, key, "cpu", number of elements)`.
    fn tensor(&mut self, name: &str, key: &str, view: &TensorView<'_>) -> io::Result<()> {
        self.string(name)?;
        self.0.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.string("storage")?;
        self.0.extend(b"ctorch\n");
        self.0.extend(storage_class(view.dtype()).as_bytes());
        self.0.push(b'\n');
        self.string(key)?;
        self.string("cpu")?;
        self.integer(view.numel())?;
        self.0.extend(b"tQ");
        self.integer(0)?;
        self.tuple(view.shape())?;
        self.tuple(&contiguous_strides(view.shape()))?;
        self.0.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        Ok(())
    }

    fn string(&mut self, text: &str) -> io::Result<()> {
        let len = u32::try_from(text.len()).map_err(io::Error::other)?;
        self.0.push(b'X');
        self.0.extend(len.to_le_bytes());
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn integer(&mut self, value: usize) -> io::Result<()> {
        match i32::try_from(value) {
            Ok(value) => {
                self.0.push(b'J');
                self.0.extend(value.to_le_bytes());
            }
            Err(_) => {
                let value = i64::try_from(value).map_err(io::Error::other)?;
                self.0.extend([0x8a, 8]);
                self.0.extend(value.to_le_bytes());
            }
        }
        Ok(())
    }

    fn tuple(&mut self, values: &[usize]) -> io::Result<()> {
        self.0.push(b'(');
        for &value in values {
            self.integer(value)?;
        }
        self.0.push(b't');
        Ok(())
    }
}

/// In elements. An extent of zero counts as one, as in PyTorch.
fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim].saturating_mul(shape[dim].max(1));
    }
    strides
}

fn storage_class(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "DoubleStorage",
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::BF16 => "BFloat16Storage",
        Dtype::I64 => "LongStorage",
        Dtype::I32 => "IntStorage",
        Dtype::I16 => "ShortStorage",
        Dtype::I8 => "CharStorage",
        Dtype::U8 => "ByteStorage",
        Dtype::Bool => "BoolStorage",
    }
}
