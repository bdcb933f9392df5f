use std::num::NonZeroUsize;

use tch::Tensor;

use crate::{Error, LatentCodec, LatentScale, Moments, RawLatents};

/// A codec that takes a batch a few images at a time: the memory of few, the results of all (up to kernel rounding).
#[derive(Debug)]
pub struct Sliced<C> {
    codec: C,
    images: NonZeroUsize,
}

impl<C: LatentCodec> Sliced<C> {
    /// `codec`, called with at most `images` images.
    pub fn new(codec: C, images: NonZeroUsize) -> Self {
        Self { codec, images }
    }

    /// The batch's slices in order; what is no batch of images goes as it is, for the codec to refuse.
    fn slices(&self, batch: &Tensor) -> Vec<Tensor> {
        match batch.size()[..] {
            [n, _, _, _] if n > 0 => batch.split(self.images.get() as i64, 0),
            _ => vec![batch.shallow_clone()],
        }
    }
}

impl<C: LatentCodec> LatentCodec for Sliced<C> {
    fn downsampling(&self) -> usize {
        self.codec.downsampling()
    }

    fn latent_channels(&self) -> usize {
        self.codec.latent_channels()
    }

    fn scale(&self) -> LatentScale {
        self.codec.scale()
    }

    fn encode(&self, images: &Tensor) -> Result<Moments, Error> {
        let slices = self.slices(images).into_iter();
        let (means, logvars): (Vec<Tensor>, Vec<Tensor>) =
            slices.map(|slice| Ok(self.codec.encode(&slice)?.into_parts())).collect::<Result<_, Error>>()?;
        Moments::new(&Tensor::cat(&means, 0), &Tensor::cat(&logvars, 0))
    }

    fn decode_raw(&self, raw: &RawLatents) -> Result<Tensor, Error> {
        let slices = self.slices(raw.tensor()).into_iter();
        let images: Vec<Tensor> =
            slices.map(|s| self.codec.decode_raw(&RawLatents::new(s))).collect::<Result<_, _>>()?;
        Ok(Tensor::cat(&images, 0))
    }
}
