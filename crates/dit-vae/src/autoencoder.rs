use std::collections::BTreeMap;

use dit_config::VaeConfig;
use dit_ops::{Kernels, conv::records_gradient};
use dit_weights::{TensorSource, VaeCheckpoint, check_tensors, find_non_finite, to_tensor};
use tch::{Device, Kind, Tensor};

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::layers::Conv2d;
use crate::weights::Weights;
use crate::{Error, LatentCodec, LatentScale, Moments, RawLatents};

/// The KL-regularised autoencoder of latent diffusion (Rombach et al. 2022, appendix G), in any width and depth.
///
/// It computes in the kind it was made with: fp32, or bf16, at half the time or less on CPUs that multiply it faster than fp32.
#[derive(Debug)]
pub struct AutoencoderKl {
    config: VaeConfig,
    device: Device,
    kind: Kind,
    /// What layers hand each other.
    activations: Kind,
    /// Whether layers are packed, and so know no gradients.
    packed: bool,
    encoder: Encoder,
    quant: Option<Conv2d>,
    /// What [`load_encoder`](Self::load_encoder) leaves out.
    decoding: Option<Decoding>,
}

/// From raw latents to pictures.
#[derive(Debug)]
struct Decoding {
    post_quant: Option<Conv2d>,
    decoder: Decoder,
}

/// What of an autoencoder is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halves {
    Both,
    Encoder,
}

impl Halves {
    fn include(self, tensor: &str) -> bool {
        self == Self::Both || !(tensor.starts_with("decoder.") || tensor.starts_with("post_quant_conv."))
    }
}

impl AutoencoderKl {
    /// The autoencoder of a checkpoint of any format and spelling, on `device` and in `kind`, computed by the fastest kernels
    /// ([`Kernels::Fused`]), which give no gradients.
    ///
    /// # Errors
    /// As [`load_with`](Self::load_with).
    pub fn load(checkpoint: &VaeCheckpoint, device: Device, kind: Kind) -> Result<Self, Error> {
        Self::load_with(checkpoint, device, kind, Kernels::Fused)
    }

    /// The same with a choice of kernels.
    ///
    /// Beside the mapped file, whose pages are released as they are read, no second copy of the weights is held.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the file cannot be read or holds NaN or infinities; else as
    /// [`from_tensors`](Self::from_tensors).
    pub fn load_with(checkpoint: &VaeCheckpoint, device: Device, kind: Kind, kernels: Kernels) -> Result<Self, Error> {
        Self::load_halves(checkpoint, device, kind, kernels, Halves::Both)
    }

    /// As [`load`](Self::load), without the half that decodes: for whoever only encodes, half the time and memory. The whole
    /// checkpoint is checked all the same.
    ///
    /// # Errors
    /// As [`load_with`](Self::load_with). Decoding is [`Error::NoDecoder`] then.
    pub fn load_encoder(checkpoint: &VaeCheckpoint, device: Device, kind: Kind) -> Result<Self, Error> {
        Self::load_halves(checkpoint, device, kind, Kernels::Fused, Halves::Encoder)
    }

    fn load_halves(
        checkpoint: &VaeCheckpoint,
        device: Device,
        kind: Kind,
        kernels: Kernels,
        halves: Halves,
    ) -> Result<Self, Error> {
        check_tensors(checkpoint, &checkpoint.config().tensors(), Weights::EXPECTED, |_| None)?;
        let tensors = find_non_finite(checkpoint)?;
        if !tensors.is_empty() {
            return Err(dit_weights::Error::NonFinite { tensors }.into());
        }
        let mut tensors = BTreeMap::new();
        for name in checkpoint.infos().keys().filter(|name| halves.include(name)) {
            tensors.insert(name.clone(), to_tensor(checkpoint, name)?.to_device(device));
            checkpoint.release(name);
        }
        Self::of_halves(checkpoint.config().clone(), tensors, device, kind, kernels, halves)
    }

    /// An autoencoder of these weights, named as in diffusers' present state dicts ([`VaeConfig::tensors`] lists them),
    /// moved to `device` and converted to `kind`.
    ///
    /// [`Kernels::Fused`] packs the weights for a CPU with AVX2, AVX-512 or NEON, where `kind` is fp32 or bf16;
    /// on every other machine, device and kind it means libtorch's operators, as [`Kernels::Plain`] does. There is no int8 autoencoder:
    /// [`Kernels::Int8`] is as fused. With packed weights, bf16 is what is multiplied; sums and activations are fp32.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] lists every tensor missing, unexpected or mis-shaped; [`Error::Kind`] for integers among
    /// them, or a `kind` that is not Float, BFloat16, Half or Double.
    pub fn from_tensors(
        config: VaeConfig,
        tensors: BTreeMap<String, Tensor>,
        device: Device,
        kind: Kind,
        kernels: Kernels,
    ) -> Result<Self, Error> {
        Self::of_halves(config, tensors, device, kind, kernels, Halves::Both)
    }

    fn of_halves(
        config: VaeConfig,
        tensors: BTreeMap<String, Tensor>,
        device: Device,
        kind: Kind,
        kernels: Kernels,
        halves: Halves,
    ) -> Result<Self, Error> {
        let mut specs = config.tensors();
        specs.retain(|spec| halves.include(&spec.name));
        let mut weights = Weights::checked(&specs, tensors, device, kind, kernels)?;
        let weights = &mut weights;
        let point =
            |weights: &mut Weights, wanted: bool, name: &str| wanted.then(|| Conv2d::same(weights, name)).transpose();
        Ok(Self {
            encoder: Encoder::new(weights, &config)?,
            quant: point(weights, config.use_quant_conv, "quant_conv")?,
            decoding: match halves {
                Halves::Encoder => None,
                Halves::Both => Some(Decoding {
                    post_quant: point(weights, config.use_post_quant_conv, "post_quant_conv")?,
                    decoder: Decoder::new(weights, &config)?,
                }),
            },
            packed: weights.products().is_some(),
            activations: weights.activations(),
            config,
            device,
            kind,
        })
    }

    /// What it is on paper.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes in; see [`from_tensors`](Self::from_tensors).
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `x` where and as the network computes, if it is a floating-point (N ≥ 1, `channels`, positive, positive).
    fn input(&self, what: &'static str, x: &Tensor, channels: usize) -> Result<Tensor, Error> {
        let size = x.size();
        if size.len() != 4 || size[1] != channels as i64 || size.contains(&0) {
            let expected = format!("(N, {channels}, height, width), none of them 0");
            return Err(Error::Shape { what, actual: size, expected });
        }
        if !x.is_floating_point() {
            return Err(Error::Kind { what: what.to_owned(), actual: x.kind(), expected: "floating point" });
        }
        if self.packed && records_gradient(x) {
            return Err(Error::Gradient { what });
        }
        Ok(x.to_device(self.device).to_kind(self.activations))
    }
}

impl LatentCodec for AutoencoderKl {
    fn downsampling(&self) -> usize {
        self.config.downsampling()
    }

    fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    fn scale(&self) -> LatentScale {
        LatentScale::of(&self.config)
    }

    fn encode(&self, images: &Tensor) -> Result<Moments, Error> {
        let x = self.input("images", images, self.config.in_channels)?; // (N, 3, H, W)
        let (height, width, factor) = (x.size()[2] as u64, x.size()[3] as u64, self.downsampling() as u64);
        if !height.is_multiple_of(factor) || !width.is_multiple_of(factor) {
            return Err(Error::NotDivisible { height, width, factor });
        }
        let x = self.encoder.forward(&x)?; // (N, 2·C, h, w)
        let x = match &self.quant {
            None => x,
            Some(quant) => quant.forward(&x)?, // (N, 2·C, h, w)
        };
        let channels = self.config.latent_channels as i64;
        Moments::new(&x.narrow(1, 0, channels), &x.narrow(1, channels, channels)) // (N, C, h, w) twice
    }

    fn decode_raw(&self, raw: &RawLatents) -> Result<Tensor, Error> {
        let Some(Decoding { post_quant, decoder }) = &self.decoding else { return Err(Error::NoDecoder) };
        let z = self.input("latents", raw.tensor(), self.config.latent_channels)?; // (N, C, h, w)
        let z = match post_quant {
            None => z,
            Some(post_quant) => post_quant.forward(&z)?, // (N, C, h, w)
        };
        Ok(decoder.forward(&z)?.to_kind(Kind::Float).contiguous()) // (N, 3, H, W)
    }
}
