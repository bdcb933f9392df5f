//! What is trained on, and how it is varied.

use dit_data::{CropRecipe, Limits, Source};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::super::demo::SIDE;
use crate::Error;

/// Grey 32 × 32 pictures with classes, in memory.
#[derive(Debug, Clone)]
pub struct GreyPictures {
    /// (N, 32, 32).
    pub(super) levels: Vec<u8>,
    pub(super) labels: Vec<i64>,
    pub(super) class_names: Vec<String>,
}

impl GreyPictures {
    /// All pictures of `source`, smaller ones padded with black; colours are averaged.
    ///
    /// # Errors
    /// Whatever reading and decoding meet, and pictures larger than 32 × 32.
    pub fn load(source: &Source) -> Result<Self, Error> {
        let mut levels = Vec::with_capacity(source.len() * SIDE * SIDE);
        let mut labels = Vec::with_capacity(source.len());
        for index in 0..source.len() {
            let record = source.record(index);
            let decoded = source.read(index)?.decode(&Limits::default());
            let picture = decoded.map_err(|source| Error::Decode { key: record.key.to_owned(), source })?;
            let picture = CropRecipe::Pad.apply(picture, SIDE)?;
            let (pixels, _) = picture.pixels().as_chunks::<3>();
            levels.extend(pixels.iter().map(|&[r, g, b]| ((u16::from(r) + u16::from(g) + u16::from(b)) / 3) as u8));
            labels.push(i64::from(record.label));
        }
        Ok(Self { levels, labels, class_names: source.class_names().to_vec() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A hash of the pictures, their labels and the labels' names.
    pub(super) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{} {:?}\n", self.len(), self.class_names));
        hash.update(&self.levels);
        self.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
        hex::encode(hash.finalize())
    }

    /// Those of `chosen`, each moved and mirrored by `random`: (N, 1, 32, 32) and their labels.
    pub(super) fn varied(&self, chosen: &[usize], largest_shift: u32, random: &mut ChaCha8Rng) -> (Tensor, Tensor) {
        let each = |&index: &usize| augment(self.picture(index), largest_shift, random);
        let levels: Vec<u8> = chosen.iter().flat_map(each).collect();
        let labels: Vec<i64> = chosen.iter().map(|&index| self.labels[index]).collect();
        Self::batch(&levels, &labels)
    }

    fn picture(&self, index: usize) -> &[u8] {
        &self.levels[index * SIDE * SIDE..][..SIDE * SIDE]
    }

    /// Pictures in [−1, 1] (N, 1, 32, 32) from their levels, and their labels.
    pub(super) fn batch(levels: &[u8], labels: &[i64]) -> (Tensor, Tensor) {
        let side = SIDE as i64;
        let pictures = Tensor::from_slice(levels).view([-1, 1, side, side]).to_kind(Kind::Float) / 127.5 - 1.0;
        (pictures, Tensor::from_slice(labels))
    }
}

/// Fisher & Yates.
pub(super) fn shuffle(order: &mut [usize], random: &mut ChaCha8Rng) {
    for last in (1..order.len()).rev() {
        order.swap(last, below(last as u64 + 1, random) as usize);
    }
}

/// 0 … bound − 1; the bias of at most bound / 2⁶⁴ does no harm here.
fn below(bound: u64, random: &mut ChaCha8Rng) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// `picture` moved at random, black where nothing was, and mirrored half the time.
fn augment(picture: &[u8], largest_shift: u32, random: &mut ChaCha8Rng) -> Vec<u8> {
    let largest = largest_shift as isize;
    let mut shift = || below(2 * largest as u64 + 1, random) as isize - largest;
    let (down, right) = (shift(), shift());
    let mirrored = below(2, random) == 1;
    let side = SIDE as isize;
    let mut moved = vec![0; SIDE * SIDE];
    for (index, level) in moved.iter_mut().enumerate() {
        let (row, column) = ((index / SIDE) as isize - down, (index % SIDE) as isize - right);
        let column = if mirrored { side - 1 - column } else { column };
        if (0..side).contains(&row) && (0..side).contains(&column) {
            *level = picture[(row * side + column) as usize];
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn augmentation_moves_and_mirrors() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut picture = vec![0; SIDE * SIDE];
        picture[10 * SIDE + 12] = 200;
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let moved = augment(&picture, 1, &mut random);
            let lit: Vec<usize> = (0..SIDE * SIDE).filter(|&index| moved[index] > 0).collect();
            let &[place] = &lit[..] else { panic!("{lit:?}") };
            places.insert((place / SIDE, place % SIDE));
        }
        let expected = (9..=11).flat_map(|row| [11, 12, 13, 18, 19, 20].map(|column| (row, column)));
        assert_eq!(places, expected.collect());
    }
}
