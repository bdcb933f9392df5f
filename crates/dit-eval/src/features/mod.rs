//! Networks whose activations are compared.

pub mod demo;
pub mod demo_training;
pub mod inception;

use std::path::Path;

use dit_weights::{SafetensorsFile, TensorSource, TorchFile, to_tensor};
use tch::{Device, Kind, Tensor};

use crate::Error;

/// What a feature network makes of a batch of pictures, in fp32 on the CPU.
#[derive(Debug)]
pub struct Features {
    /// Pooled features (N, D): for FID, KID, precision and recall.
    pub pooled: Tensor,
    /// Spatial features (N, S): for sFID.
    pub spatial: Option<Tensor>,
    /// Class logits (N, K): for the Inception score.
    pub logits: Option<Tensor>,
}

impl Features {
    /// Those of all `parts`, one after the other.
    pub(crate) fn joined(parts: &[Self]) -> Result<Self, Error> {
        let join = |of: &dyn Fn(&Self) -> Option<&Tensor>| -> Result<Option<Tensor>, Error> {
            let tensors: Option<Vec<&Tensor>> = parts.iter().map(of).collect();
            Ok(tensors.map(|tensors| Tensor::f_cat(&tensors, 0)).transpose()?)
        };
        let pooled: Vec<&Tensor> = parts.iter().map(|part| &part.pooled).collect();
        Ok(Self {
            pooled: Tensor::f_cat(&pooled, 0)?,
            spatial: join(&|part| part.spatial.as_ref())?,
            logits: join(&|part| part.logits.as_ref())?,
        })
    }
}

/// How many numbers a network gives for a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// Pooled features.
    pub pooled: usize,
    /// Spatial features, where it has any.
    pub spatial: Option<usize>,
    /// Classes, where it has any.
    pub logits: Option<usize>,
}

impl Widths {
    /// Bytes that a picture's features take where they are kept: fp32.
    pub fn bytes(self) -> u64 {
        let Self { pooled, spatial, logits } = self;
        4 * (pooled + spatial.unwrap_or(0) + logits.unwrap_or(0)) as u64
    }
}

/// A network that turns pictures into features.
pub trait FeatureNetwork {
    /// What it is called in reports, such as `inception`.
    fn name(&self) -> &str;

    /// SHA-256 of its weights' file, in hexadecimal.
    fn sha256(&self) -> &str;

    /// How many numbers it gives for a picture.
    fn widths(&self) -> Widths;

    /// Whether it takes pictures of this height and width.
    ///
    /// # Errors
    /// [`Error::PictureSize`] with what it takes.
    fn check_size(&self, height: usize, width: usize) -> Result<(), Error>;

    /// The features of `pictures`, uint8 (N, H, W, 3).
    ///
    /// # Errors
    /// [`Error::Torch`], [`Error::PictureSize`].
    fn extract(&self, pictures: &Tensor) -> Result<Features, Error>;
}

/// Opens the tensors in a file of PyTorch's or safetensors' format.
fn open_weights(path: &Path) -> Result<Box<dyn TensorSource>, Error> {
    let named_so = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"));
    if named_so {
        return Ok(Box::new(SafetensorsFile::open(path)?));
    }
    Ok(Box::new(TorchFile::open(path)?.state_dict("")?))
}

/// One tensor of `source`, as `kind` on `device`.
fn read_to(source: &dyn TensorSource, name: &str, kind: Kind, device: Device) -> Result<Tensor, Error> {
    Ok(to_tensor(source, name)?.f_to_kind(kind)?.f_to_device(device)?)
}
