//! Groups of samples that are left out together, and seeded choices among samples.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tch::Tensor;

/// Ten blocks of nearly the same size, to which samples belong at random: samples are often sorted by class, and a block should
/// stand for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    of: Vec<u8>,
}

impl Blocks {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// The blocks of samples 0 … count − 1.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut of = vec![0; count];
        for (place, sample) in permutation(count, seed).into_iter().enumerate() {
            of[sample] = (place % Self::COUNT) as u8;
        }
        Self { of }
    }

    /// The block of a sample.
    pub(crate) fn of(&self, sample: usize) -> usize {
        self.of.get(sample).copied().map_or(0, usize::from)
    }

    /// For each block, which of the samples `start … start + count − 1` are in it, counted from `start`.
    pub(crate) fn rows(&self, start: usize, count: usize) -> [Tensor; Self::COUNT] {
        let part = self.of.get(start..start + count).unwrap_or_default();
        std::array::from_fn(|block| {
            let rows = part.iter().zip(0..).filter(|&(&of, _)| usize::from(of) == block).map(|(_, row)| row);
            Tensor::from_slice(&rows.collect::<Vec<i64>>())
        })
    }
}

/// 0 … count − 1 in a random order (Fisher & Yates).
pub(crate) fn permutation(count: usize, seed: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(last + 1, &mut random));
    }
    order
}

/// `size` of 0 … count − 1, each at most once.
pub(crate) fn choose(count: usize, size: usize, random: &mut ChaCha8Rng) -> Vec<i64> {
    let mut order: Vec<i64> = (0..count as i64).collect();
    let size = size.min(count);
    for place in 0..size {
        order.swap(place, place + below(count - place, random));
    }
    order.truncate(size);
    order
}

/// 0 … bound − 1, off by no more than bound / 2⁶⁴ in probability.
fn below(bound: usize, random: &mut ChaCha8Rng) -> usize {
    ((u128::from(random.next_u64()) * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_one_block_and_blocks_are_even() {
        for count in [0, 1, 9, 10, 1003] {
            let rows = Blocks::new(count, 7).rows(0, count);
            let sizes: Vec<usize> = rows.iter().map(Tensor::numel).collect();
            assert_eq!(sizes.iter().sum::<usize>(), count);
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
        assert_eq!(Blocks::new(100, 1), Blocks::new(100, 1));
        assert_ne!(Blocks::new(100, 1), Blocks::new(100, 2));
    }

    #[test]
    fn choices_do_not_repeat() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for (count, size) in [(10, 10), (100, 7), (3, 5)] {
            let mut chosen = choose(count, size, &mut random);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), size.min(count));
            assert!(chosen.iter().all(|index| (0..count as i64).contains(index)));
        }
    }
}
