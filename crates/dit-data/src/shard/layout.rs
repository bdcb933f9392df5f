use dit_weights::Dtype;
use half::f16;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Which mirror images are stored beside each picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flips {
    /// The picture, then its horizontal mirror image, so that training can flip at random.
    Both,
    /// The picture alone.
    None,
}

impl Flips {
    /// Versions of a picture that are stored.
    pub fn count(self) -> usize {
        match self {
            Self::Both => 2,
            Self::None => 1,
        }
    }
}

/// The element type of stored moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// IEEE 754 binary16: half the space, 11 significant bits.
    F16,
    /// IEEE 754 binary32: what the encoder computed.
    F32,
}

impl Store {
    /// The type's name in files of tensors.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
        }
    }

    /// Appends `values`, rounded to the nearest, ties to even; on failure the first value that is not finite or does not fit.
    fn append(self, values: &[f32], out: &mut Vec<u8>) -> Result<(), f32> {
        out.reserve(values.len() * self.dtype().size());
        for &value in values {
            match self {
                Self::F32 if value.is_finite() => out.extend(value.to_le_bytes()),
                Self::F16 if f16::from_f32(value).is_finite() => out.extend(f16::from_f32(value).to_le_bytes()),
                Self::F16 | Self::F32 => return Err(value),
            }
        }
        Ok(())
    }

    /// The values of stored bytes.
    pub(crate) fn values(self, bytes: &[u8]) -> Box<dyn Iterator<Item = f32> + '_> {
        match self {
            Self::F16 => Box::new(bytes.as_chunks().0.iter().map(|&value| f16::from_le_bytes(value).to_f32())),
            Self::F32 => Box::new(bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value))),
        }
    }
}

/// The shape and element type of one record's moments, (flips, 2C, h, w).
///
/// Invariant: no extent is 0, and the bytes of a record fit `usize` many times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MomentsLayout {
    flips: Flips,
    channels: usize,
    side: usize,
    store: Store,
}

impl MomentsLayout {
    /// Square latents of `channels` C and `side` h = w; `None` where an extent is 0 or absurd.
    pub fn new(flips: Flips, channels: usize, side: usize, store: Store) -> Option<Self> {
        let sound = (1..=1 << 12).contains(&channels) && (1..=1 << 14).contains(&side);
        sound.then_some(Self { flips, channels, side, store })
    }

    /// The mirror images stored.
    pub fn flips(&self) -> Flips {
        self.flips
    }

    /// Latent channels C; the moments have twice as many.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Latent height and width.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The element type.
    pub fn store(&self) -> Store {
        self.store
    }

    /// Values of one latent (C, h, w).
    pub fn latent_len(&self) -> usize {
        self.channels * self.side * self.side
    }

    /// Values of one record (flips, 2C, h, w).
    pub fn record_len(&self) -> usize {
        self.flips.count() * 2 * self.latent_len()
    }

    /// Bytes of one record.
    pub fn record_bytes(&self) -> usize {
        self.record_len() * self.store.dtype().size()
    }

    /// The shape of `records` records' moments, (n, flips, 2C, h, w).
    pub fn shape(&self, records: usize) -> Vec<usize> {
        vec![records, self.flips.count(), 2 * self.channels, self.side, self.side]
    }

    /// Stored bytes of whole records; `keys` names them in messages.
    pub(crate) fn store_records(&self, values: &[f32], keys: &[String]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        for (record, key) in values.chunks(self.record_len()).zip(keys) {
            self.store.append(record, &mut bytes).map_err(|value| Error::LatentValue {
                key: key.clone(),
                value,
                help: if value.is_finite() { "store f32" } else { "compute in fp32, or check the VAE" },
            })?;
        }
        Ok(bytes)
    }
}
