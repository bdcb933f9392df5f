//! Every random number of a run, as a function of the seed, the step and what it is for. There is no generator whose state would
//! have to be saved, and libtorch's global one is neither read nor moved.

use dit_random::box_muller;
pub(crate) use dit_random::unit;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rayon::prelude::*;

/// What a random number is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// ε of the forward process.
    Noise,
    /// Which timestep each sample is noised to.
    Timesteps,
    /// Which labels become the null class.
    LabelDropout,
    /// ε of validation.
    ValidationNoise,
    /// Which records are held out.
    HeldOut,
}

impl Purpose {
    fn tag(self) -> &'static [u8; 12] {
        match self {
            Self::Noise => b"train noise ",
            Self::Timesteps => b"train steps ",
            Self::LabelDropout => b"train labels",
            Self::ValidationNoise => b"valid noise ",
            Self::HeldOut => b"held out    ",
        }
    }
}

/// Which step of which run. After a roll-back a step is taken anew, with other numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub seed: u64,
    pub step: u64,
    pub rollbacks: u32,
}

/// A generator keyed by all of it.
pub(crate) fn generator(moment: Moment, purpose: Purpose) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&moment.seed.to_le_bytes());
    key[8..16].copy_from_slice(&moment.step.to_le_bytes());
    key[16..20].copy_from_slice(&moment.rollbacks.to_le_bytes());
    key[20..].copy_from_slice(purpose.tag());
    ChaCha8Rng::from_seed(key)
}

/// Two independent standard normals. (By 1 − u, not by u + 2⁻⁵³ as elsewhere: runs that are continued had these bits.)
pub(crate) fn normal_pair(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let u = 1.0 - unit(rng); // (0, 1]
    box_muller(u, unit(rng))
}

/// Normals that one thread draws at a time.
const NORMALS_AT_ONCE: usize = 1 << 13;
/// Words of 32 bits that a [`normal_pair`] takes.
const WORDS_OF_A_PAIR: usize = 4;

/// The first `count` standard normals of `rng`, pair by pair, drawn by all threads of the rayon pool it is called in.
pub(crate) fn normals(rng: &ChaCha8Rng, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    values.par_chunks_mut(NORMALS_AT_ONCE).enumerate().for_each(|(chunk, values)| {
        let mut rng = rng.clone();
        rng.set_word_pos((chunk * NORMALS_AT_ONCE / 2 * WORDS_OF_A_PAIR) as u128);
        for pair in values.chunks_mut(2) {
            pair.iter_mut().zip(normal_pair(&mut rng)).for_each(|(slot, value)| *slot = value as f32);
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::Rng;

    use super::*;

    const MOMENT: Moment = Moment { seed: 1, step: 2, rollbacks: 3 };

    #[test]
    fn every_part_of_the_key_matters() {
        let first = |moment, purpose| generator(moment, purpose).next_u64();
        let all = [
            first(MOMENT, Purpose::Noise),
            first(Moment { seed: 2, ..MOMENT }, Purpose::Noise),
            first(Moment { step: 3, ..MOMENT }, Purpose::Noise),
            first(Moment { rollbacks: 4, ..MOMENT }, Purpose::Noise),
            first(MOMENT, Purpose::Timesteps),
            first(MOMENT, Purpose::LabelDropout),
            first(MOMENT, Purpose::ValidationNoise),
            first(MOMENT, Purpose::HeldOut),
        ];
        assert_eq!(first(MOMENT, Purpose::Noise), all[0]);
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }

    #[test]
    fn threads_draw_what_one_would() {
        let mut rng = generator(MOMENT, Purpose::Noise);
        let count = 3 * NORMALS_AT_ONCE + 5;
        let mut one_by_one: Vec<f32> = Vec::new();
        while one_by_one.len() < count {
            one_by_one.extend(normal_pair(&mut rng).map(|value| value as f32));
        }
        one_by_one.truncate(count);
        assert_eq!(normals(&generator(MOMENT, Purpose::Noise), count), one_by_one);
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let values = normals(&generator(MOMENT, Purpose::Noise), 100_001);
        let mean = |power: i32| values.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / values.len() as f64;
        // Deviations of the sample moments: 0.003, 0.0045, 0.012, 0.031.
        for (power, expected, tolerance) in [(1, 0.0, 0.015), (2, 1.0, 0.02), (3, 0.0, 0.06), (4, 3.0, 0.15)] {
            let found = mean(power);
            assert!((found - expected).abs() < tolerance, "moment {power}: {found}");
        }
    }
}
