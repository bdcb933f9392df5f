//! What a codec makes of pictures: they are encoded and decoded before the feature network sees them.

use anyhow::{Context, Result};
use dit_catalog::Kind;
use dit_eval::{Error, FeatureNetwork, Features, Widths};
use dit_vae::{AutoencoderKl, LatentCodec};
use dit_weights::VaeCheckpoint;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use crate::open::Library;

/// Which codec it was.
#[derive(Debug, Clone, Serialize)]
pub struct Codec {
    pub name: String,
    pub sha256: String,
}

/// A feature network behind a codec. Its hash is of both, so that features of pictures and of what the codec makes of them are
/// never taken for each other.
pub struct Reconstruction<'a> {
    network: &'a dyn FeatureNetwork,
    vae: AutoencoderKl,
    pub codec: Codec,
    sha256: String,
}

impl<'a> Reconstruction<'a> {
    /// Through the codec of this name, or in this file or folder.
    pub fn new(network: &'a dyn FeatureNetwork, codec: &str, device: Device) -> Result<Self> {
        let located = Library::discover()?.locate(codec, Kind::Vae).context("--reconstruct")?;
        let checkpoint = VaeCheckpoint::open(&located.path)?;
        let codec = Codec { name: located.name, sha256: checkpoint.sha256()?.to_owned() };
        let vae = AutoencoderKl::load(&checkpoint, device, tch::Kind::Float)?;
        let both = Sha256::digest(format!("{} of reconstructions by {}", network.sha256(), codec.sha256));
        Ok(Self { network, vae, codec, sha256: hex::encode(both) })
    }

    /// uint8 (N, H, W, 3) to the same, through the mean of the codec's posterior; bytes as those of samples.
    fn reconstruct(&self, pictures: &Tensor) -> Result<Tensor, Error> {
        let _guard = tch::no_grad_guard();
        let images = pictures.f_permute([0, 3, 1, 2])?.f_to_kind(tch::Kind::Float)? / 127.5 - 1.0; // (N, 3, H, W)
        let raw = self.vae.encode(&images).map_err(other)?.mode();
        let decoded = self.vae.decode_raw(&raw).map_err(other)?; // (N, 3, H, W)
        let values = Vec::<f32>::try_from(&decoded.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_flatten(0, -1)?)?;
        let levels: Option<Vec<u8>> = values.into_iter().map(dit_image::quantize).collect();
        let levels = levels.ok_or(Error::NonFinite { what: "reconstructed pictures", count: pictures.numel() })?;
        Ok(Tensor::f_from_slice(&levels)?.f_view(&pictures.size()[..])?)
    }
}

fn other(error: dit_vae::Error) -> Error {
    Error::Network(Box::new(error))
}

impl FeatureNetwork for Reconstruction<'_> {
    fn name(&self) -> &str {
        self.network.name()
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn widths(&self) -> Widths {
        self.network.widths()
    }

    fn check_size(&self, height: usize, width: usize) -> Result<(), Error> {
        let factor = self.vae.config().downsampling();
        if !height.is_multiple_of(factor) || !width.is_multiple_of(factor) {
            let (network, takes) = (self.codec.name.clone(), "sides that its downsampling divides");
            return Err(Error::PictureSize { network, height, width, takes });
        }
        self.network.check_size(height, width)
    }

    fn extract(&self, pictures: &Tensor) -> Result<Features, Error> {
        self.network.extract(&self.reconstruct(pictures)?)
    }
}
