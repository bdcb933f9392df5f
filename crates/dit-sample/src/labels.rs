use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde::{Deserialize, Serialize};

/// How the classes of a run's images were chosen: what an evaluation has to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelPolicy {
    /// Every listed class as often, one class after the other.
    #[default]
    Balanced,
    /// Each image's drawn uniformly from the list, by seed and image.
    Random,
}

impl LabelPolicy {
    pub(crate) fn is_balanced(&self) -> bool {
        *self == Self::Balanced
    }

    /// The class of every image: `each` times as many images as there are `listed` classes.
    pub fn classes(self, listed: &[u32], each: usize, seed: u64) -> Vec<u32> {
        match self {
            Self::Balanced => listed.iter().flat_map(|&class| std::iter::repeat_n(class, each)).collect(),
            Self::Random => {
                let count = listed.len().saturating_mul(each);
                (0..count as u64).filter_map(|image| draw(listed, seed, image)).collect()
            }
        }
    }
}

/// One of `listed`: a function of seed and image alone.
fn draw(listed: &[u32], seed: u64, image: u64) -> Option<u32> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&image.to_le_bytes());
    key[16..].copy_from_slice(b"dit-sample label");
    let number = ChaCha8Rng::from_seed(key).next_u64();
    // 64 bits over at most 10⁸ classes: the bias is below 10⁻¹¹.
    let index = (u128::from(number) * listed.len() as u128) >> 64;
    listed.get(index as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_labels_come_class_by_class() {
        assert_eq!(LabelPolicy::Balanced.classes(&[4, 2], 3, 0), [4, 4, 4, 2, 2, 2]);
    }

    #[test]
    fn random_labels_are_uniform_and_of_seed_and_image_alone() {
        let listed = [1, 3, 5, 7, 9];
        let many = LabelPolicy::Random.classes(&listed, 4000, 1);
        assert_eq!(many.len(), 20_000);
        for class in listed {
            let share = many.iter().filter(|&&found| found == class).count() as f64 / 20_000.0;
            assert!((share - 0.2).abs() < 0.015, "class {class}: {share}"); // 5 standard errors
        }
        assert_eq!(many[..50], LabelPolicy::Random.classes(&listed, 10, 1));
        assert_ne!(many[..50], LabelPolicy::Random.classes(&listed, 10, 2));
    }
}
