//! Uniform and normal numbers from a generator's words, the same to the bit on every platform: what operating systems have for logarithm and
//! sine differs in the last bits, so both are a portable library's.
//!
//! Which generator, and what it is keyed by, its users decide: a picture's noise, a record's, a step's and a tensor's each have their own.
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::f64::consts::TAU;

use rand_core::Rng;

/// Uniform in [0, 1): the upper 53 bits of a word of 64.
pub fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Two independent standard normals, √(−2 ln u)·cos 2πv and √(−2 ln u)·sin 2πv, of two independent numbers uniform in (0, 1] and in
/// [0, 1) (Box & Muller 1958).
pub fn box_muller(u: f64, v: f64) -> [f64; 2] {
    let radius = (-2.0 * libm::log(u)).sqrt();
    let (sin, cos) = libm::sincos(TAU * v);
    [radius * cos, radius * sin]
}

/// [`box_muller`] of the next two words of 64: u = (upper 53 bits + 1)/2⁵³, v = (upper 53 bits)/2⁵³.
pub fn normal_pair(rng: &mut impl Rng) -> [f64; 2] {
    // Exact: both are whole numbers of 2⁻⁵³.
    let u = unit(rng) + 1.0 / (1_u64 << 53) as f64;
    box_muller(u, unit(rng))
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    /// Of so many numbers, the moments of a standard normal distribution within five standard errors.
    #[test]
    fn pairs_are_standard_normal_and_independent() {
        const PAIRS: usize = 100_000;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let pairs: Vec<[f64; 2]> = (0..PAIRS).map(|_| normal_pair(&mut rng)).collect();
        let mean = |value: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(value).sum::<f64>() / PAIRS as f64;
        let error = 5.0 / (PAIRS as f64).sqrt();
        for which in [0, 1] {
            for (power, moment, spread) in [(1, 0.0, 1.0_f64), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
                let found = mean(&|pair| pair[which].powi(power));
                assert!((found - moment).abs() < error * spread.sqrt(), "{which}, {power}: {found}");
            }
        }
        assert!(mean(&|[a, b]| a * b).abs() < error);
        assert!(mean(&|[a, b]| (a * a - 1.0) * (b * b - 1.0)).abs() < 2.0 * error);
    }

    /// The bits that pictures and runs depend on.
    #[test]
    fn the_first_numbers_are_these() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        assert_eq!(unit(&mut rng).to_bits(), 0x3fc4_32a9_9a11_eba0);
        assert_eq!(normal_pair(&mut rng).map(f64::to_bits), [0xbfe1_2077_9c7b_5015, 0xbffc_fb97_766e_57ba]);
    }

    #[test]
    fn the_ends_of_the_interval_give_numbers() {
        let least = 1.0 / (1_u64 << 53) as f64;
        for (u, v) in [(1.0, 0.0), (least, 0.0), (least, 1.0 - least), (1.0, 0.5)] {
            assert!(box_muller(u, v).iter().all(|value| value.abs() < 8.6), "{u}, {v}: {:?}", box_muller(u, v));
        }
    }
}
