use tch::Tensor;

use crate::{Error, LatentScale, Latents, Moments, RawLatents};

/// Images to latents and back. [`AutoencoderKl`](crate::AutoencoderKl) is one; [`Sliced`](crate::Sliced) and
/// [`Tiled`](crate::Tiled) bound the memory of any.
///
/// Wrap inference in `tch::no_grad_guard()`: a codec that records gradients would keep every activation.
/// Values are not checked: a non-finite image gives non-finite latents.
pub trait LatentCodec {
    /// Image pixels per latent pixel, along each side.
    fn downsampling(&self) -> usize;

    /// Latent channels C.
    fn latent_channels(&self) -> usize;

    /// The scale between raw latents and those of the diffusion model.
    fn scale(&self) -> LatentScale;

    /// The posterior of `images`: (N, 3, H, W) in \[−1, 1\], any floating-point kind and device, to fp32 moments
    /// (N, C, H / factor, W / factor) on the codec's device.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotDivisible`] or [`Error::Kind`] where the images are not such.
    fn encode(&self, images: &Tensor) -> Result<Moments, Error>;

    /// The images of raw latents: (N, C, h, w), any floating-point kind and device, to fp32 (N, 3, h·factor, w·factor)
    /// on the codec's device, nominally in \[−1, 1\], not clamped.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Kind`] where the latents are not such.
    fn decode_raw(&self, raw: &RawLatents) -> Result<Tensor, Error>;

    /// What the diffusion model sees of `raw`.
    fn latents(&self, raw: &RawLatents) -> Latents {
        self.scale().apply(raw)
    }

    /// The images of the diffusion model's latents; else as [`decode_raw`](Self::decode_raw).
    ///
    /// # Errors
    /// As [`decode_raw`](Self::decode_raw).
    fn decode(&self, latents: &Latents) -> Result<Tensor, Error> {
        self.decode_raw(&self.scale().remove(latents))
    }
}

impl<C: LatentCodec + ?Sized> LatentCodec for &C {
    fn downsampling(&self) -> usize {
        (**self).downsampling()
    }

    fn latent_channels(&self) -> usize {
        (**self).latent_channels()
    }

    fn scale(&self) -> LatentScale {
        (**self).scale()
    }

    fn encode(&self, images: &Tensor) -> Result<Moments, Error> {
        (**self).encode(images)
    }

    fn decode_raw(&self, raw: &RawLatents) -> Result<Tensor, Error> {
        (**self).decode_raw(raw)
    }
}

impl<C: LatentCodec + ?Sized> LatentCodec for Box<C> {
    fn downsampling(&self) -> usize {
        (**self).downsampling()
    }

    fn latent_channels(&self) -> usize {
        (**self).latent_channels()
    }

    fn scale(&self) -> LatentScale {
        (**self).scale()
    }

    fn encode(&self, images: &Tensor) -> Result<Moments, Error> {
        (**self).encode(images)
    }

    fn decode_raw(&self, raw: &RawLatents) -> Result<Tensor, Error> {
        (**self).decode_raw(raw)
    }
}
