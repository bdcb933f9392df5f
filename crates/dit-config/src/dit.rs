use std::{fmt, ops::Deref};

use serde::{Deserialize, Serialize};

use crate::{BlockDesign, ConfigError, StandardModel};

/// Height and width of a latent, in latent pixels (image side / 8 for the Stable Diffusion VAE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 2]", into = "[usize; 2]")]
pub struct LatentSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl LatentSize {
    /// A square latent.
    pub fn square(side: usize) -> Self {
        Self { height: side, width: side }
    }
}

impl From<[usize; 2]> for LatentSize {
    fn from([height, width]: [usize; 2]) -> Self {
        Self { height, width }
    }
}

impl From<LatentSize> for [usize; 2] {
    fn from(size: LatentSize) -> Self {
        [size.height, size.width]
    }
}

impl fmt::Display for LatentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// Whether the network also predicts the reverse process' variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sigma {
    /// 2C output channels: the mean's target, then the interpolation coefficient of the log-variance
    /// (Nichol & Dhariwal 2021, equation 15).
    Learned,
    /// C output channels: the mean's target alone.
    Fixed,
}

/// Which implementation's arithmetic the forward pass follows, where two published ones differ on the same weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Numerics {
    /// The original, which trained the released weights: timestep frequencies divide by 128, every LayerNorm's eps is 1e-6.
    #[default]
    Original,
    /// diffusers' `DiTTransformer2DModel`: frequencies divide by 127, the second norm of a block has eps 1e-5.
    Diffusers,
}

/// The values that define a DiT, unchecked; [`DitConfig::new`] checks them.
///
/// This is also the form in which a configuration is written, as JSON, into a checkpoint's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitSpec {
    /// How the blocks take the conditioning.
    pub block: BlockDesign,
    /// Token width D.
    pub hidden: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Patch side p, in latent pixels; divides the latent's height and width.
    pub patch: usize,
    /// Width of the MLP's hidden layer over D.
    pub mlp_ratio: f64,
    /// Latent channels C.
    pub in_channels: usize,
    /// Latent height and width for which the position table is made.
    pub latent: LatentSize,
    /// Classes, the null class not counted.
    pub num_classes: usize,
    /// Probability of replacing a label by the null class in training; the null class exists iff it is above 0.
    pub label_dropout: f64,
    /// Learned or fixed variance.
    pub sigma: Sigma,
    /// Whose arithmetic.
    #[serde(default)]
    pub numerics: Numerics,
}

/// A valid DiT configuration. Read its values as fields (it dereferences to [`DitSpec`]); change a copy with
/// [`DitConfig::with`].
///
/// Invariants: every extent is positive, `heads` divides `hidden`, `hidden` is a multiple of 4 (the position table's
/// sine and cosine for two axes), `patch` divides the latent, `label_dropout` lies in \[0, 1), the MLP's width is whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "DitSpec", into = "DitSpec")]
pub struct DitConfig {
    spec: DitSpec,
}

impl Deref for DitConfig {
    type Target = DitSpec;

    fn deref(&self) -> &DitSpec {
        &self.spec
    }
}

impl From<DitConfig> for DitSpec {
    fn from(config: DitConfig) -> Self {
        config.spec
    }
}

impl TryFrom<DitSpec> for DitConfig {
    type Error = ConfigError;

    fn try_from(spec: DitSpec) -> Result<Self, ConfigError> {
        Self::new(spec)
    }
}

/// Upper bound on any extent: far above every published model, low enough that no product below overflows.
const MAX_EXTENT: usize = 1 << 20;

impl DitConfig {
    /// Checks `spec`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] lists every value that breaks an invariant.
    pub fn new(spec: DitSpec) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut extent = |name: &str, value: usize, most: usize| {
            let fits = (1..=most).contains(&value);
            if !fits {
                problems.push(format!("{name} is {value}, expected 1 to {most}"));
            }
            fits
        };
        let hidden = extent("hidden", spec.hidden, 1 << 16);
        let heads = extent("heads", spec.heads, 1 << 16);
        extent("depth", spec.depth, 4096);
        let patch = extent("patch", spec.patch, 1024);
        extent("in_channels", spec.in_channels, 4096);
        let height = extent("latent height", spec.latent.height, 1 << 14);
        let width = extent("latent width", spec.latent.width, 1 << 14);
        extent("num_classes", spec.num_classes, MAX_EXTENT);
        if hidden && heads && !spec.hidden.is_multiple_of(spec.heads) {
            problems.push(format!("{} heads do not divide hidden {}", spec.heads, spec.hidden));
        }
        if hidden && !spec.hidden.is_multiple_of(4) {
            problems.push(format!("hidden {} is not a multiple of 4, which the position table needs", spec.hidden));
        }
        if patch
            && height
            && width
            && (!spec.latent.height.is_multiple_of(spec.patch) || !spec.latent.width.is_multiple_of(spec.patch))
        {
            problems.push(format!("patch {} does not divide the latent {}", spec.patch, spec.latent));
        }
        if !(spec.label_dropout >= 0.0 && spec.label_dropout < 1.0) {
            problems.push(format!("label_dropout is {}, expected 0 or more and below 1", spec.label_dropout));
        }
        let mlp_hidden = spec.mlp_ratio * spec.hidden as f64;
        if !(mlp_hidden >= 1.0 && mlp_hidden.fract() == 0.0 && mlp_hidden <= MAX_EXTENT as f64) {
            problems.push(format!("mlp_ratio {} times hidden {} is not a whole width", spec.mlp_ratio, spec.hidden));
        }
        if problems.is_empty() {
            Ok(Self { spec })
        } else {
            Err(ConfigError::Invalid { what: "DiT configuration", problems })
        }
    }

    /// A standard model for a square image of `image_size` pixels, ImageNet's 1000 classes and the VAE's factor 8:
    /// adaLN-Zero, learned sigma, label dropout 0.1, 4 latent channels.
    ///
    /// # Errors
    /// If `image_size` is not a multiple of 8 times the patch size.
    pub fn standard(model: StandardModel, image_size: usize) -> Result<Self, ConfigError> {
        if !image_size.is_multiple_of(8) {
            let problem = format!("image size {image_size} is not a multiple of 8, the VAE's factor");
            return Err(ConfigError::Invalid { what: "DiT configuration", problems: vec![problem] });
        }
        Self::new(DitSpec {
            block: BlockDesign::AdaLnZero,
            hidden: model.size.hidden(),
            depth: model.size.depth(),
            heads: model.size.heads(),
            patch: model.patch,
            mlp_ratio: 4.0,
            in_channels: 4,
            latent: LatentSize::square(image_size / 8),
            num_classes: 1000,
            label_dropout: 0.1,
            sigma: Sigma::Learned,
            numerics: Numerics::Original,
        })
    }

    /// A changed copy, checked again.
    ///
    /// # Errors
    /// As [`DitConfig::new`].
    pub fn with(&self, change: impl FnOnce(&mut DitSpec)) -> Result<Self, ConfigError> {
        let mut spec = self.spec.clone();
        change(&mut spec);
        Self::new(spec)
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden / self.heads
    }

    /// Width of the MLP's hidden layer.
    pub fn mlp_hidden(&self) -> usize {
        (self.mlp_ratio * self.hidden as f64) as usize
    }

    /// Rows and columns of patches.
    pub fn grid(&self) -> LatentSize {
        LatentSize { height: self.latent.height / self.patch, width: self.latent.width / self.patch }
    }

    /// Number of patch tokens T.
    pub fn tokens(&self) -> usize {
        self.grid().height * self.grid().width
    }

    /// Output channels: 2C with learned sigma, else C.
    pub fn out_channels(&self) -> usize {
        match self.sigma {
            Sigma::Learned => 2 * self.in_channels,
            Sigma::Fixed => self.in_channels,
        }
    }

    /// Rows of the label table: one more than the classes iff there is a null class.
    pub fn label_rows(&self) -> usize {
        self.num_classes + usize::from(self.null_class().is_some())
    }

    /// Index of the null class, if the model was trained with label dropout.
    pub fn null_class(&self) -> Option<usize> {
        (self.label_dropout > 0.0).then_some(self.num_classes)
    }

    /// The standard model that this configuration's size and patch are, whatever its other values.
    pub fn standard_model(&self) -> Option<StandardModel> {
        StandardModel::ALL.into_iter().find(|model| {
            (model.size.hidden(), model.size.depth(), model.size.heads(), model.patch)
                == (self.hidden, self.depth, self.heads, self.patch)
        })
    }
}

/// The standard model's name where it is one, else the geometry, such as `DiT(hidden 192, depth 6, heads 6)/2`.
impl fmt::Display for DitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.standard_model() {
            Some(model) => write!(f, "{model}")?,
            None => {
                let DitSpec { hidden, depth, heads, patch, .. } = self.spec;
                write!(f, "DiT(hidden {hidden}, depth {depth}, heads {heads})/{patch}")?;
            }
        }
        match self.block {
            BlockDesign::AdaLnZero => Ok(()),
            design => write!(f, " {design}"),
        }
    }
}

/// A standard name, at 256 px: `"DiT-XL/2".parse()`.
impl std::str::FromStr for DitConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::standard(text.parse()?, 256)
    }
}
