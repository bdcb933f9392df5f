use dit_random::normal_pair;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rayon::prelude::*;
use tch::Tensor;

use crate::{Draw, Error, LatentShape, Noise, Result};

/// Noise computed from (seed, image, moment), the same on every platform and in every batch.
///
/// Each (seed, image) keys a ChaCha8 generator: seed and image, little-endian, then the 16 bytes `dit-diffusion v1`. Stream 0
/// is the initial latent, stream n + 1 the n-th step. Each pair of 64-bit words becomes [two normals](normal_pair) in f64, rounded to
/// f32; they fill (C, H, W) row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeededNoise {
    seed: u64,
}

impl SeededNoise {
    /// The noise of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn generator(self, image: u64, at: Draw) -> ChaCha8Rng {
        let mut key = [0; 32];
        let (numbers, tag) = key.split_at_mut(16);
        let (seed_bytes, image_bytes) = numbers.split_at_mut(8);
        seed_bytes.copy_from_slice(&self.seed.to_le_bytes());
        image_bytes.copy_from_slice(&image.to_le_bytes());
        tag.copy_from_slice(b"dit-diffusion v1");
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(match at {
            Draw::Initial => 0,
            Draw::Step(number) => u64::from(number) + 1,
        });
        generator
    }
}

impl Noise for SeededNoise {
    fn draw(&self, images: &[u64], at: Draw, shape: LatentShape) -> Result<Tensor> {
        let too_large = || Error::NoiseTooLarge { images: images.len(), shape };
        let per_image = shape.numel().ok_or_else(too_large)?;
        let numel = images.len().checked_mul(per_image).ok_or_else(too_large)?;
        let mut values = Vec::new();
        values.try_reserve_exact(numel).map_err(|_| too_large())?;
        values.resize(numel, 0.0_f32);
        // Images at once: a GPU waits for it.
        values.par_chunks_exact_mut(per_image.max(1)).zip(images).for_each(|(latent, &image)| {
            let mut generator = self.generator(image, at);
            for pair in latent.chunks_mut(2) {
                pair.iter_mut().zip(normal_pair(&mut generator)).for_each(|(slot, value)| *slot = value as f32);
            }
        });
        let [channels, height, width] = shape.sizes();
        let values = Tensor::f_from_slice(&values).map_err(|_| too_large())?;
        Ok(values.view([images.len() as i64, channels, height, width]))
    }
}
