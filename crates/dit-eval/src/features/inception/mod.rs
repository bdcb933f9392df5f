//! Inception-v3 as the 2015 TensorFlow graph has it, on which FID is defined.

mod blocks;
mod convolution;
mod pointwise;
mod resize;

use std::{collections::BTreeMap, path::Path};

use dit_config::TensorSpec;
use dit_weights::{Error as WeightsError, TensorInfo, TensorSource, TensorView, check_tensors, sha256_of};
use tch::{Device, Kind, Tensor};

use self::{
    blocks::{BlockA, BlockB, BlockC, BlockD, BlockE, Make, Pool, halve},
    convolution::{Convolution, Window},
};
use super::{FeatureNetwork, Features, Widths, open_weights, read_to};
use crate::Error;
pub use resize::Preprocessing;

/// Width of the pooled features, `pool_3` in the graph.
pub const POOLED: usize = 2048;
/// Channels of the spatial features: the first of `mixed_6/conv`.
const SPATIAL_CHANNELS: i64 = 7;
/// Width of the spatial features: 17 · 17 · 7.
pub const SPATIAL: usize = 17 * 17 * SPATIAL_CHANNELS as usize;
/// Classes of the graph, of which 1000 have a meaning.
pub const CLASSES: usize = 1008;

/// The network that FID, sFID, KID and the Inception score are defined on.
///
/// Weights are those of `pt_inception-2015-12-05-6726825d.pth`, ported from the graph of 5 December 2015; where that graph differs
/// from Inception-v3 as others have it, so does this: averages leave out what lies outside the picture, `Mixed_7c` takes
/// maxima where the others average, and there are 1008 classes.
///
/// Batch normalisations are folded into the convolutions; results differ from the unfolded ones by fp32 rounding.
#[derive(Debug)]
pub struct Inception {
    stem: Stem<Convolution>,
    mixed_5: [BlockA<Convolution>; 3],
    mixed_6a: BlockB<Convolution>,
    mixed_6: [BlockC<Convolution>; 4],
    mixed_7a: BlockD<Convolution>,
    mixed_7: [BlockE<Convolution>; 2],
    /// (1008, 2048). The bias is left out, as the evaluators do.
    head: Tensor,
    preprocessing: Preprocessing,
    device: Device,
    sha256: String,
}

/// The convolutions before the mixed blocks.
#[derive(Debug)]
struct Stem<C> {
    conv_1a: C,
    conv_2a: C,
    conv_2b: C,
    conv_3b: C,
    conv_4a: C,
}

/// Everything but the head.
struct Trunk<C> {
    stem: Stem<C>,
    mixed_5: [BlockA<C>; 3],
    mixed_6a: BlockB<C>,
    mixed_6: [BlockC<C>; 4],
    mixed_7a: BlockD<C>,
    mixed_7: [BlockE<C>; 2],
}

impl<C> Trunk<C> {
    fn new(make: Make<C>) -> Result<Self, Error> {
        Ok(Self {
            stem: Stem {
                conv_1a: make("Conv2d_1a_3x3", Window::new(3, 32, [3, 3]).strided())?,
                conv_2a: make("Conv2d_2a_3x3", Window::new(32, 32, [3, 3]))?,
                conv_2b: make("Conv2d_2b_3x3", Window::new(32, 64, [3, 3]).same())?,
                conv_3b: make("Conv2d_3b_1x1", Window::new(64, 80, [1, 1]))?,
                conv_4a: make("Conv2d_4a_3x3", Window::new(80, 192, [3, 3]))?,
            },
            mixed_5: [
                BlockA::new(make, "Mixed_5b", 192, 32)?,
                BlockA::new(make, "Mixed_5c", 256, 64)?,
                BlockA::new(make, "Mixed_5d", 288, 64)?,
            ],
            mixed_6a: BlockB::new(make, "Mixed_6a")?,
            mixed_6: [
                BlockC::new(make, "Mixed_6b", 128)?,
                BlockC::new(make, "Mixed_6c", 160)?,
                BlockC::new(make, "Mixed_6d", 160)?,
                BlockC::new(make, "Mixed_6e", 192)?,
            ],
            mixed_7a: BlockD::new(make, "Mixed_7a")?,
            mixed_7: [
                BlockE::new(make, "Mixed_7b", 1280, Pool::Average)?,
                BlockE::new(make, "Mixed_7c", 2048, Pool::Maximum)?,
            ],
        })
    }
}

impl Inception {
    /// Loads the weights at `path`, in PyTorch's or safetensors' format under the names of `pytorch-fid`, to `device`.
    ///
    /// # Errors
    /// [`Error::Weights`] with every tensor that is missing, unexpected or of another shape.
    pub fn load(path: &Path, preprocessing: Preprocessing, device: Device) -> Result<Self, Error> {
        let source = open_weights(path)?;
        Self::of_source(&source, preprocessing, device, sha256_of(&[path])?)
    }

    /// As [`load`](Self::load), from tensors that are already open; `sha256` stands for them in reports.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of_source(
        source: &dyn TensorSource,
        preprocessing: Preprocessing,
        device: Device,
        sha256: String,
    ) -> Result<Self, Error> {
        let source = WithoutCounters::new(source);
        check_tensors(&source, &Self::specs()?, "the Inception network of FID", |_| None)?;
        let make: Make<Convolution> = &mut |name, window| Convolution::read(&source, name, window, device);
        let Trunk { stem, mixed_5, mixed_6a, mixed_6, mixed_7a, mixed_7 } = Trunk::new(make)?;
        let head = read_to(&source, "fc.weight", Kind::Float, device)?;
        Ok(Self { stem, mixed_5, mixed_6a, mixed_6, mixed_7a, mixed_7, head, preprocessing, device, sha256 })
    }

    /// The tensors that a file of weights must have.
    ///
    /// # Errors
    /// None.
    pub fn specs() -> Result<Vec<TensorSpec>, Error> {
        let mut specs = Vec::new();
        let make: Make<()> = &mut |name, Window { inputs, outputs, kernel: [rows, columns], .. }| {
            let mut spec =
                |part: &str, shape: Vec<usize>| specs.push(TensorSpec { name: format!("{name}.{part}"), shape });
            spec("conv.weight", vec![outputs, inputs, rows, columns]);
            ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
                .into_iter()
                .for_each(|part| spec(part, vec![outputs]));
            Ok(())
        };
        Trunk::new(make)?;
        specs.push(TensorSpec { name: "fc.weight".to_owned(), shape: vec![CLASSES, POOLED] });
        specs.push(TensorSpec { name: "fc.bias".to_owned(), shape: vec![CLASSES] });
        Ok(specs)
    }

    /// Everything that is measured, of inputs that are already prepared.
    ///
    /// # Shapes
    /// fp32 (N, 3, 299, 299) → (N, 2048), (N, 2023), (N, 1008).
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub fn forward(&self, inputs: &Tensor) -> Result<Features, Error> {
        let mut spatial = None;
        let last = self.walk(inputs, &mut |layer, x| {
            if layer == "Mixed_6d" {
                spatial = Some(spatial_of(x)?);
            }
            Ok(())
        })?;
        let pooled = last.f_mean_dim(&[2i64, 3][..], false, Kind::Float)?; // (N, 2048)
        let logits = pooled.f_linear(&self.head, None::<&Tensor>)?; // (N, 1008)
        Ok(Features { pooled, spatial, logits: Some(logits) })
    }

    /// Shows `see` each layer's name in the weights and its output (N, C, H, W), and returns the last.
    ///
    /// # Errors
    /// [`Error::Torch`], and what `see` returns.
    pub fn walk(
        &self,
        inputs: &Tensor,
        see: &mut dyn FnMut(&'static str, &Tensor) -> Result<(), Error>,
    ) -> Result<Tensor, Error> {
        let _guard = tch::no_grad_guard();
        let Stem { conv_1a, conv_2a, conv_2b, conv_3b, conv_4a } = &self.stem;
        let mut x = conv_1a.forward(inputs)?; // (N, 32, 149, 149)
        see("Conv2d_1a_3x3", &x)?;
        x = conv_2a.forward(&x)?; // (N, 32, 147, 147)
        see("Conv2d_2a_3x3", &x)?;
        x = conv_2b.forward(&x)?; // (N, 64, 147, 147)
        see("Conv2d_2b_3x3", &x)?;
        x = conv_3b.forward(&halve(&x)?)?; // (N, 80, 73, 73)
        see("Conv2d_3b_1x1", &x)?;
        x = conv_4a.forward(&x)?; // (N, 192, 71, 71)
        see("Conv2d_4a_3x3", &x)?;
        x = halve(&x)?; // (N, 192, 35, 35)
        for (name, block) in ["Mixed_5b", "Mixed_5c", "Mixed_5d"].into_iter().zip(&self.mixed_5) {
            x = block.forward(&x)?; // (N, 256 or 288, 35, 35)
            see(name, &x)?;
        }
        x = self.mixed_6a.forward(&x)?; // (N, 768, 17, 17)
        see("Mixed_6a", &x)?;
        for (name, block) in ["Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"].into_iter().zip(&self.mixed_6) {
            x = block.forward(&x)?; // (N, 768, 17, 17)
            see(name, &x)?;
        }
        x = self.mixed_7a.forward(&x)?; // (N, 1280, 8, 8)
        see("Mixed_7a", &x)?;
        for (name, block) in ["Mixed_7b", "Mixed_7c"].into_iter().zip(&self.mixed_7) {
            x = block.forward(&x)?; // (N, 2048, 8, 8)
            see(name, &x)?;
        }
        Ok(x)
    }

    /// The network's input of `pictures`: uint8 (N, H, W, 3) → fp32 (N, 3, 299, 299).
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub fn prepare(&self, pictures: &Tensor) -> Result<Tensor, Error> {
        let _guard = tch::no_grad_guard();
        self.preprocessing.apply(pictures, self.device)
    }
}

/// The first seven channels of `mixed_6/conv` (the 1 × 1 branch of `Mixed_6d`, which comes first in its output), flattened as
/// TensorFlow does: rows, columns, channels. (N, 768, 17, 17) → (N, 2023).
fn spatial_of(x: &Tensor) -> Result<Tensor, Error> {
    Ok(x.f_narrow(1, 0, SPATIAL_CHANNELS)?.f_permute([0, 2, 3, 1])?.f_flatten(1, 3)?)
}

impl FeatureNetwork for Inception {
    fn name(&self) -> &str {
        match self.preprocessing {
            Preprocessing::TensorFlow => "inception",
            Preprocessing::PytorchFid => "inception-pytorch-fid",
        }
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn widths(&self) -> Widths {
        Widths { pooled: POOLED, spatial: Some(SPATIAL), logits: Some(CLASSES) }
    }

    fn check_size(&self, height: usize, width: usize) -> Result<(), Error> {
        if (1..=8192).contains(&height) && (1..=8192).contains(&width) {
            return Ok(());
        }
        let takes = "1 x 1 to 8192 x 8192 pixels";
        Err(Error::PictureSize { network: self.name().to_owned(), height, width, takes })
    }

    fn extract(&self, pictures: &Tensor) -> Result<Features, Error> {
        let Features { pooled, spatial, logits } = self.forward(&self.prepare(pictures)?)?;
        let home = |x: Tensor| x.f_to_device(Device::Cpu);
        Ok(Features {
            pooled: home(pooled)?,
            spatial: spatial.map(home).transpose()?,
            logits: logits.map(home).transpose()?,
        })
    }
}

/// A source without the batch counters of training, which some files have and nothing needs.
struct WithoutCounters<'a> {
    inner: &'a dyn TensorSource,
    infos: BTreeMap<String, TensorInfo>,
}

impl<'a> WithoutCounters<'a> {
    fn new(inner: &'a dyn TensorSource) -> Self {
        let mut infos = inner.infos().clone();
        infos.retain(|name, _| !name.ends_with(".bn.num_batches_tracked"));
        Self { inner, infos }
    }
}

impl TensorSource for WithoutCounters<'_> {
    fn infos(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<TensorView<'_>, WeightsError> {
        self.inner.read(name)
    }

    fn why_missing(&self, name: &str) -> Option<String> {
        self.inner.why_missing(name)
    }
}
