//! Shuffling without a table.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const ROUNDS: usize = 8;

/// A pseudo-random permutation of 0 … n − 1 that is computed, not stored: an epoch of any length takes no memory.
///
/// A balanced Feistel network over the smallest even number of bits that holds n (Luby & Rackoff 1988), its round functions
/// a keyed 64-bit mixer; values of n and above are sent through it again until they fall below ("cycle walking", Black &
/// Rogaway 2002), at most four times on average.
#[derive(Debug, Clone)]
pub(crate) struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// That of (seed, epoch).
    pub(crate) fn new(n: u64, seed: u64, epoch: u64) -> Self {
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        let mut generator = keyed(seed, epoch, b"dit-data shuffle");
        let keys = std::array::from_fn(|_| generator.next_u64());
        Self { n, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Where `index`, which is below n, goes.
    pub(crate) fn at(&self, index: u64) -> u64 {
        debug_assert!(index < self.n);
        let mut value = self.once(index);
        while value >= self.n {
            value = self.once(value);
        }
        value
    }

    fn once(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// Stafford's variant 13 of the 64-bit finaliser of MurmurHash3: every bit of the input moves every bit of the output.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A generator that is a function of two numbers and of what it is for.
pub(crate) fn keyed(seed: u64, number: u64, purpose: &[u8; 16]) -> ChaCha8Rng {
    let mut key = [0; 32];
    let (numbers, tag) = key.split_at_mut(16);
    let (first, second) = numbers.split_at_mut(8);
    first.copy_from_slice(&seed.to_le_bytes());
    second.copy_from_slice(&number.to_le_bytes());
    tag.copy_from_slice(purpose);
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n: u64) {
        let mut seen = vec![false; n as usize];
        let permutation = Permutation::new(n, 7, 3);
        for index in 0..n {
            let to = permutation.at(index) as usize;
            assert!(!std::mem::replace(&mut seen[to], true), "{n}: two indices go to {to}");
        }
    }

    #[test]
    fn every_record_comes_once() {
        [1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 1000, 65_537].into_iter().for_each(check);
    }

    #[test]
    fn epochs_and_seeds_shuffle_differently_and_evenly() {
        let order = |seed, epoch| -> Vec<u64> {
            let permutation = Permutation::new(1000, seed, epoch);
            (0..1000).map(|index| permutation.at(index)).collect()
        };
        assert_eq!(order(1, 2), order(1, 2));
        for other in [order(1, 3), order(2, 2), (0..1000).collect()] {
            let same = order(1, 2).iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} of 1000 records at the same place; 1 is expected");
        }
        // The mean distance of neighbours in a random order of n is n/3, its deviation here about 7.
        let first = order(1, 2);
        let distance: u64 = first.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum();
        assert!((300..367).contains(&(distance / 999)), "neighbours are {} apart", distance / 999);
        // First places over many epochs: each of 8 records about 500 times in 4000 (deviation 21).
        let mut counts = [0; 8];
        (0..4000).for_each(|epoch| counts[Permutation::new(8, 9, epoch).at(0) as usize] += 1);
        assert!(counts.iter().all(|&count| (400..600).contains(&count)), "{counts:?}");
    }
}
