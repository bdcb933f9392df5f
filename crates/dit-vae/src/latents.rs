use dit_config::VaeConfig;
use tch::{Device, Kind, Tensor};

/// Latents as the autoencoder makes and reads them, (N, C, h, w): *not* what the diffusion model sees.
#[derive(Debug)]
pub struct RawLatents(Tensor);

/// Latents as the diffusion model sees them, (N, C, h, w): shifted and scaled to about unit variance.
#[derive(Debug)]
pub struct Latents(Tensor);

macro_rules! tensor_newtype {
    ($name:ident, $what:literal) => {
        impl $name {
            #[doc = concat!("Declares `tensor`, (N, C, h, w), to be ", $what, " latents. Nothing is computed.")]
            pub fn new(tensor: Tensor) -> Self {
                Self(tensor)
            }

            /// The values, (N, C, h, w).
            pub fn tensor(&self) -> &Tensor {
                &self.0
            }

            /// The values in fp32, row-major.
            pub fn to_vec(&self) -> Vec<f32> {
                values(&self.0)
            }

            /// The values, (N, C, h, w), given away.
            pub fn into_tensor(self) -> Tensor {
                self.0
            }
        }
    };
}

tensor_newtype!(RawLatents, "raw");
tensor_newtype!(Latents, "scaled");

/// The values of `tensor` in fp32, row-major.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}

/// The one place where latents are scaled: `scaled = (raw − shift) · scale`.
///
/// It needs no network, so that training can read raw moments from disk and apply it without loading an autoencoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentScale {
    scale: f64, // finite, not 0
    shift: f64, // finite
}

impl LatentScale {
    /// `scaling_factor` and `shift_factor` (absent: 0) of the configuration.
    pub fn of(config: &VaeConfig) -> Self {
        Self { scale: config.scaling_factor, shift: config.shift_factor.unwrap_or(0.0) }
    }

    /// The factor; about one over the raw latents' standard deviation.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// What is taken off the raw latents before; 0 for most autoencoders.
    pub fn shift(&self) -> f64 {
        self.shift
    }

    /// What the diffusion model sees of `raw`.
    pub fn apply(&self, raw: &RawLatents) -> Latents {
        Latents((&raw.0 - self.shift) * self.scale)
    }

    /// What the autoencoder decodes of `latents`.
    pub fn remove(&self, latents: &Latents) -> RawLatents {
        RawLatents(&latents.0 / self.scale + self.shift)
    }
}
