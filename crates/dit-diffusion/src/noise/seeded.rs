use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use tch::Tensor;

use crate::{Draw, LatentShape, Noise, Result};

/// Noise computed from (seed, image, moment), the same on every platform and in every batch.
///
/// Each (seed, image) keys a ChaCha8 generator: seed and image, little-endian, then the 16 bytes `dit-diffusion v1`. Stream 0
/// is the initial latent, stream n + 1 the n-th step. Each pair of 64-bit words becomes two normals by Box & Muller's transform
/// in f64: u = (upper 53 bits of the first + 1)/2⁵³, v = (upper 53 bits of the second)/2⁵³, then √(−2 ln u)·cos 2πv and
/// √(−2 ln u)·sin 2πv, rounded to f32; they fill (C, H, W) row by row. Logarithm and sine are a portable library's, since
/// those of operating systems differ in their last bits.
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
        let per_image = shape.numel();
        let mut values = vec![0.0_f32; images.len() * per_image];
        // Images at once: a GPU waits for it.
        values.par_chunks_exact_mut(per_image.max(1)).zip(images).for_each(|(latent, &image)| {
            let mut generator = self.generator(image, at);
            for pair in latent.chunks_mut(2) {
                pair.iter_mut().zip(normal_pair(&mut generator)).for_each(|(slot, value)| *slot = value);
            }
        });
        let [channels, height, width] = shape.sizes();
        Ok(Tensor::from_slice(&values).view([images.len() as i64, channels, height, width]))
    }
}

/// Two independent standard normals. Box & Muller 1958.
fn normal_pair(generator: &mut ChaCha8Rng) -> [f32; 2] {
    const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
    let u = ((generator.next_u64() >> 11) + 1) as f64 * STEP; // (0, 1]
    let v = (generator.next_u64() >> 11) as f64 * STEP; // [0, 1)
    let radius = (-2.0 * libm::log(u)).sqrt();
    let (sin, cos) = libm::sincos(TAU * v);
    [(radius * cos) as f32, (radius * sin) as f32]
}
