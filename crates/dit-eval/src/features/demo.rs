//! The small classifier whose features serve pictures of clothes at 32 × 32.

use std::{collections::BTreeMap, path::Path};

use dit_config::TensorSpec;
use dit_weights::{CastSource, Dtype, SafetensorsFile, TchSource, check_tensors, sha256_of, write_safetensors};
use tch::{Device, Kind, Tensor};

use super::{FeatureNetwork, Features, Widths, read_to};
use crate::Error;

/// The side of the pictures that it takes, in pixels.
pub const SIDE: usize = 32;
/// Width of the penultimate layer: the feature space.
pub const WIDTH: usize = 128;
/// Input channels, output channels and stride of each 3 × 3 convolution.
pub(crate) const LAYERS: [(i64, i64, i64); 6] =
    [(1, 24, 1), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1), (96, WIDTH as i64, 2)];
/// What the file's metadata calls its content.
const FORMAT: &str = "dit-eval demo features 1";

/// A convolutional classifier of Fashion-MNIST; the mean of its last activations is a feature space for 32 × 32 pictures of that
/// kind, and of no other. FIDs in this space compare with each other only, never with those of Inception.
///
/// Colour is ignored: a picture's three channels are averaged first.
///
/// Six 3 × 3 convolutions with ReLU (batch normalisation folded in), their outputs averaged over the 4 × 4 positions to
/// 128 features, then one linear layer.
#[derive(Debug)]
pub struct DemoFeatures {
    convolutions: Vec<Convolution>,
    /// (classes, 128).
    head_weight: Tensor,
    /// (classes).
    head_bias: Tensor,
    device: Device,
    sha256: String,
    class_names: Vec<String>,
    test_accuracy: Option<f64>,
}

#[derive(Debug)]
pub(crate) struct Convolution {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) stride: i64,
}

/// What a trained classifier's file says beside its tensors.
#[derive(Debug, Clone, Default)]
pub struct DemoNotes {
    /// What each class is called.
    pub class_names: Vec<String>,
    /// Fraction of the test set that it classifies rightly.
    pub test_accuracy: Option<f64>,
    /// More to write down, such as the recipe.
    pub more: BTreeMap<String, String>,
}

impl DemoFeatures {
    /// Whether the file at `path` says that it is such a classifier.
    ///
    /// # Errors
    /// [`Error::Weights`] for a file by the name of safetensors that is damaged.
    pub fn is_in(path: &Path) -> Result<bool, Error> {
        let says_so = |file: &SafetensorsFile| file.metadata().get("format").map(String::as_str) == Some(FORMAT);
        match SafetensorsFile::open(path) {
            Ok(file) => Ok(says_so(&file)),
            Err(error) if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors")) => {
                Err(error.into())
            }
            Err(_) => Ok(false), // of another format
        }
    }

    /// Loads the classifier at `path` to `device`, strictly.
    ///
    /// # Errors
    /// [`Error::Weights`] for a file that is not such a classifier, [`Error::NotDemo`].
    pub fn load(path: &Path, device: Device) -> Result<Self, Error> {
        let file = SafetensorsFile::open(path)?;
        let metadata = file.metadata();
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(Error::NotDemo { path: path.to_owned() });
        }
        let class_names: Vec<String> = metadata
            .get("class_names")
            .and_then(|names| serde_json::from_str(names).ok())
            .ok_or_else(|| Error::NotDemo { path: path.to_owned() })?;
        check_tensors(&file, &specs(class_names.len()), "the demo's feature network", |_| None)?;
        let read = |name: &str| read_to(&file, name, Kind::Float, device);
        let convolution = |(index, &(_, _, stride)): (usize, &(i64, i64, i64))| -> Result<Convolution, Error> {
            let weight = read(&format!("convolutions.{index}.weight"))?;
            Ok(Convolution { weight, bias: read(&format!("convolutions.{index}.bias"))?, stride })
        };
        Ok(Self {
            convolutions: LAYERS.iter().enumerate().map(convolution).collect::<Result<_, _>>()?,
            head_weight: read("head.weight")?,
            head_bias: read("head.bias")?,
            device,
            sha256: sha256_of(&[path])?,
            test_accuracy: metadata.get("test_accuracy").and_then(|text| text.parse().ok()),
            class_names,
        })
    }

    /// Writes a classifier to `path`, its values as fp16.
    pub(crate) fn save(
        path: &Path,
        convolutions: &[Convolution],
        head: [&Tensor; 2],
        notes: &DemoNotes,
    ) -> Result<(), Error> {
        let mut tensors = Vec::new();
        for (index, convolution) in convolutions.iter().enumerate() {
            tensors.push((format!("convolutions.{index}.weight"), convolution.weight.shallow_clone()));
            tensors.push((format!("convolutions.{index}.bias"), convolution.bias.shallow_clone()));
        }
        let [weight, bias] = head;
        tensors.push(("head.weight".to_owned(), weight.shallow_clone()));
        tensors.push(("head.bias".to_owned(), bias.shallow_clone()));
        let mut metadata = notes.more.clone();
        metadata.insert("format".to_owned(), FORMAT.to_owned());
        metadata.insert("class_names".to_owned(), serde_json::json!(notes.class_names).to_string());
        if let Some(accuracy) = notes.test_accuracy {
            metadata.insert("test_accuracy".to_owned(), accuracy.to_string());
        }
        let source = TchSource::new(tensors)?;
        Ok(write_safetensors(path, &CastSource::new(source, Dtype::F16), &metadata)?)
    }

    /// What each class is called.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Fraction of the test set that it classified rightly when it was trained.
    pub fn test_accuracy(&self) -> Option<f64> {
        self.test_accuracy
    }

    /// The features of pictures in [−1, 1].
    ///
    /// # Shapes
    /// (N, C, 32, 32) with C = 1 or 3 → (N, 128).
    ///
    /// # Errors
    /// [`Error::PictureSize`], [`Error::Torch`].
    pub fn features(&self, pictures: &Tensor) -> Result<Tensor, Error> {
        let size = pictures.size();
        let &[_, 1 | 3, height, width] = &size[..] else {
            return Err(Error::TensorShape { what: "pictures", actual: size, expected: "(N, 1 or 3, 32, 32)" });
        };
        self.check_size(height as usize, width as usize)?;
        let _guard = tch::no_grad_guard();
        let pictures = pictures.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let mut x = pictures.f_mean_dim(&[1i64][..], true, Kind::Float)?; // (N, 1, 32, 32)
        for Convolution { weight, bias, stride } in &self.convolutions {
            x = x.f_conv2d(weight, Some(bias), [*stride], [1], [1], 1)?.f_relu_()?;
        }
        Ok(x.f_mean_dim(&[2i64, 3][..], false, Kind::Float)?) // (N, 128)
    }

    /// The logits that belong to [`features`](Self::features).
    ///
    /// # Shapes
    /// (N, 128) → (N, classes).
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub fn logits(&self, features: &Tensor) -> Result<Tensor, Error> {
        Ok(features.f_linear(&self.head_weight, Some(&self.head_bias))?)
    }
}

impl FeatureNetwork for DemoFeatures {
    fn name(&self) -> &str {
        "demo"
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn widths(&self) -> Widths {
        Widths { pooled: WIDTH, spatial: None, logits: Some(self.class_names.len()) }
    }

    fn check_size(&self, height: usize, width: usize) -> Result<(), Error> {
        if (height, width) == (SIDE, SIDE) {
            return Ok(());
        }
        Err(Error::PictureSize { network: "demo".to_owned(), height, width, takes: "32 x 32 pixels" })
    }

    fn extract(&self, pictures: &Tensor) -> Result<Features, Error> {
        let pictures = pictures.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
        let pooled = self.features(&((pictures / 127.5) - 1.0))?;
        let logits = self.logits(&pooled)?.f_to_device(Device::Cpu)?;
        Ok(Features { pooled: pooled.f_to_device(Device::Cpu)?, spatial: None, logits: Some(logits) })
    }
}

fn specs(classes: usize) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for (index, &(inputs, outputs, _)) in LAYERS.iter().enumerate() {
        let (inputs, outputs) = (inputs as usize, outputs as usize);
        let name = |part: &str| format!("convolutions.{index}.{part}");
        specs.push(TensorSpec { name: name("weight"), shape: vec![outputs, inputs, 3, 3] });
        specs.push(TensorSpec { name: name("bias"), shape: vec![outputs] });
    }
    specs.push(TensorSpec { name: "head.weight".to_owned(), shape: vec![classes, WIDTH] });
    specs.push(TensorSpec { name: "head.bias".to_owned(), shape: vec![classes] });
    specs
}
