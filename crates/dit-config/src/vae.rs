use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// The values of a diffusers AutoencoderKL `config.json` that define the network, unchecked; keys that do not are ignored.
/// Absent keys have diffusers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeSpec {
    /// The class that wrote the file; anything but `AutoencoderKL` is refused.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Image channels in.
    pub in_channels: usize,
    /// Image channels out.
    pub out_channels: usize,
    /// Latent channels C.
    pub latent_channels: usize,
    /// Width of each level, the image's resolution first.
    pub block_out_channels: Vec<usize>,
    /// Resnets per encoder level; the decoder has one more.
    pub layers_per_block: usize,
    /// Groups of every GroupNorm.
    pub norm_num_groups: usize,
    /// The activation; only `silu` exists.
    pub act_fn: String,
    /// Encoder block types; only `DownEncoderBlock2D` exists. Empty means all of it.
    pub down_block_types: Vec<String>,
    /// Decoder block types; only `UpDecoderBlock2D` exists. Empty means all of it.
    pub up_block_types: Vec<String>,
    /// Whether the middle has its attention.
    pub mid_block_add_attention: bool,
    /// Whether a 1×1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Image side the VAE was made for; a hint, the network is convolutional.
    pub sample_size: usize,
    /// Scale of the latents that the diffusion model sees: (z − shift) · scale.
    pub scaling_factor: f64,
    /// Shift of the latents; most VAEs have none.
    pub shift_factor: Option<f64>,
    /// Per-channel normalisation, which no VAE of DiT has; refused when present.
    pub latents_mean: Option<Vec<f64>>,
    /// See `latents_mean`.
    pub latents_std: Option<Vec<f64>>,
}

impl Default for VaeSpec {
    fn default() -> Self {
        Self {
            class_name: "AutoencoderKL".to_owned(),
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            act_fn: "silu".to_owned(),
            down_block_types: Vec::new(),
            up_block_types: Vec::new(),
            mid_block_add_attention: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            sample_size: 256,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
        }
    }
}

/// A valid AutoencoderKL configuration. Read its values as fields (it dereferences to [`VaeSpec`]).
///
/// Invariants: at least one level, every width positive and a multiple of the groups, a finite non-zero scale, and
/// nothing in it that this toolkit does not compute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "VaeSpec", into = "VaeSpec")]
pub struct VaeConfig {
    spec: VaeSpec,
}

impl Deref for VaeConfig {
    type Target = VaeSpec;

    fn deref(&self) -> &VaeSpec {
        &self.spec
    }
}

impl From<VaeConfig> for VaeSpec {
    fn from(config: VaeConfig) -> Self {
        config.spec
    }
}

impl TryFrom<VaeSpec> for VaeConfig {
    type Error = ConfigError;

    fn try_from(spec: VaeSpec) -> Result<Self, ConfigError> {
        Self::new(spec)
    }
}

impl VaeConfig {
    /// Checks `spec`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] lists every value that breaks an invariant.
    pub fn new(spec: VaeSpec) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        if spec.class_name != "AutoencoderKL" {
            problems.push(format!("_class_name is '{}', only AutoencoderKL is supported", spec.class_name));
        }
        if spec.act_fn != "silu" {
            problems.push(format!("act_fn is '{}', only silu is supported", spec.act_fn));
        }
        let levels = spec.block_out_channels.len();
        if !(1..=8).contains(&levels) {
            problems.push(format!("block_out_channels has {levels} levels, expected 1 to 8"));
        }
        for (key, types, supported) in [
            ("down_block_types", &spec.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &spec.up_block_types, "UpDecoderBlock2D"),
        ] {
            if let Some(other) = types.iter().find(|name| *name != supported) {
                problems.push(format!("{key} names '{other}', only {supported} is supported"));
            }
            if !types.is_empty() && types.len() != levels {
                problems.push(format!("{key} has {} entries for {levels} levels", types.len()));
            }
        }
        for (key, value, most) in [
            ("in_channels", spec.in_channels, 1024),
            ("out_channels", spec.out_channels, 1024),
            ("latent_channels", spec.latent_channels, 4096),
            ("layers_per_block", spec.layers_per_block, 64),
            ("norm_num_groups", spec.norm_num_groups, 1 << 14),
        ] {
            if !(1..=most).contains(&value) {
                problems.push(format!("{key} is {value}, expected 1 to {most}"));
            }
        }
        for &width in &spec.block_out_channels {
            if !(1..=1 << 14).contains(&width) {
                problems.push(format!("block_out_channels holds {width}, expected 1 to 16384"));
            } else if spec.norm_num_groups > 0 && !width.is_multiple_of(spec.norm_num_groups) {
                let groups = spec.norm_num_groups;
                problems.push(format!("block_out_channels holds {width}, not a multiple of norm_num_groups {groups}"));
            }
        }
        if !(spec.scaling_factor.is_finite() && spec.scaling_factor != 0.0) {
            problems.push(format!("scaling_factor is {}, expected a finite number other than 0", spec.scaling_factor));
        }
        if spec.shift_factor.is_some_and(|shift| !shift.is_finite()) {
            problems.push("shift_factor is not finite".to_owned());
        }
        if spec.latents_mean.is_some() || spec.latents_std.is_some() {
            problems.push("latents_mean and latents_std (per-channel normalisation) are not supported".to_owned());
        }
        if problems.is_empty() {
            Ok(Self { spec })
        } else {
            Err(ConfigError::Invalid { what: "VAE configuration", problems })
        }
    }

    /// Reads a diffusers `config.json`.
    ///
    /// # Errors
    /// [`ConfigError::Json`] if the text is not such JSON, else as [`VaeConfig::new`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let spec = serde_json::from_str(text)
            .map_err(|error| ConfigError::Json { what: "VAE configuration", reason: error.to_string() })?;
        Self::new(spec)
    }

    /// Image pixels per latent pixel, along each side.
    pub fn downsampling(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.numel() as u64).sum()
    }
}
