use std::borrow::Borrow;

use dit_data::{
    Rgb,
    shard::{Flips, MomentsLayout},
};
use dit_vae::{LatentCodec, Moments};
use tch::{Kind, Tensor};

use crate::Error;

/// Pictures to moments, batch by batch.
pub(crate) struct Encoder<'a> {
    codec: &'a dyn LatentCodec,
    layout: MomentsLayout,
    side: usize,
    /// Each level of a pixel in \[−1, 1\]: (level / 255 − 0.5) / 0.5, in fp32 and in this order, as torchvision computes it.
    levels: [f32; 256],
}

impl<'a> Encoder<'a> {
    /// For square pictures of `side` pixels.
    pub(crate) fn new(codec: &'a dyn LatentCodec, layout: MomentsLayout, side: usize) -> Self {
        let levels = std::array::from_fn(|level| (level as f32 / 255.0 - 0.5) / 0.5);
        Self { codec, layout, side, levels }
    }

    /// The moments (n, flips, 2C, h, w) of n pictures; of black where there is none.
    pub(crate) fn encode(&self, pictures: &[Option<impl Borrow<Rgb>>]) -> Result<Vec<f32>, Error> {
        let images = self.images(pictures)?; // (N, 3, H, W)
        let mut versions = vec![self.moments(&images)?];
        if self.layout.flips() == Flips::Both {
            versions.push(self.moments(&images.f_flip([3])?)?);
        }
        let all = Tensor::f_stack(&versions, 1)?.f_contiguous()?; // (N, flips, 2C, h, w)
        let mut values = vec![0.0f32; all.numel()];
        let len = values.len();
        all.f_view(-1)?.f_copy_data(&mut values, len)?;
        Ok(values)
    }

    /// Mean and log-variance, (N, 2C, h, w), on the CPU.
    fn moments(&self, images: &Tensor) -> Result<Tensor, Error> {
        let moments: Moments = self.codec.encode(images)?;
        let both = Tensor::f_cat(&[moments.mean(), moments.logvar()], 1)?.f_to_device(tch::Device::Cpu)?;
        let (channels, side) = (2 * self.layout.channels() as i64, self.layout.side() as i64);
        let expected = vec![images.size()[0], channels, side, side];
        if both.size() != expected {
            return Err(Error::Moments { actual: both.size(), expected });
        }
        Ok(both.f_to_kind(Kind::Float)?)
    }

    /// (N, 3, H, W) in \[−1, 1\].
    fn images(&self, pictures: &[Option<impl Borrow<Rgb>>]) -> Result<Tensor, Error> {
        let pixels = self.side * self.side;
        let mut values = vec![self.levels[0]; pictures.len() * 3 * pixels];
        for (picture, planes) in pictures.iter().zip(values.chunks_exact_mut(3 * pixels)) {
            let Some(picture) = picture else { continue };
            for (channel, plane) in planes.chunks_exact_mut(pixels).enumerate() {
                let levels = picture.borrow().pixels().iter().skip(channel).step_by(3);
                plane.iter_mut().zip(levels).for_each(|(value, &level)| *value = self.levels[usize::from(level)]);
            }
        }
        let side = self.side as i64;
        Ok(Tensor::f_from_slice(&values)?.f_view([pictures.len() as i64, 3, side, side])?)
    }
}
