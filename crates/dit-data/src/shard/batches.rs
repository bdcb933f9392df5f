use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Flips, LatentFolder, PictureVersion, permutation::Permutation, posterior::RecordNoise};
use crate::Error;

/// Which part of every global batch a process takes: `rank` of `world`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    rank: u64,
    world: u64,
}

impl Share {
    /// All of it.
    pub const ALL: Self = Self { rank: 0, world: 1 };

    /// # Errors
    /// [`Error::Batches`] unless `rank` is below `world`.
    pub fn new(rank: usize, world: usize) -> Result<Self, Error> {
        if rank >= world {
            return Err(Error::Batches { problem: format!("rank {rank} of {world} processes: ranks count from 0") });
        }
        Ok(Self { rank: rank as u64, world: world as u64 })
    }
}

/// Whether mirror images take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlipChoice {
    /// Each record is mirrored with probability ½, as the original trains.
    Random,
    /// Never.
    Never,
}

/// What becomes of a posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PosteriorDraw {
    /// A fresh draw each time, as the original trains.
    Sample,
    /// Its mean.
    Mean,
}

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Records of one process's batch, N.
    pub batch_size: usize,
    /// What the order, the flips and the noise are functions of.
    pub seed: u64,
    /// The process's part.
    pub share: Share,
    /// Mirror images.
    pub flip: FlipChoice,
    /// Draws or means.
    pub draw: PosteriorDraw,
}

/// Where a run through the records is: between two global batches.
///
/// It holds for every rank alike. A run with another batch size or another number of processes may continue from it: what was
/// consumed of the epoch is not seen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Whole passes before this one.
    pub epoch: u64,
    /// Records of this pass, over all processes, that are behind.
    pub consumed: u64,
    /// The seed of the order.
    pub seed: u64,
    /// Records there are.
    pub records: u64,
}

/// Latents and labels of N records.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentBatch {
    /// Raw latents (N, C, h, w), row-major: *not* scaled. `dit_vae::LatentScale::of(&manifest.settings.vae.config)` is the one
    /// place where that happens.
    pub latents: Vec<f32>,
    /// N, C, h and w.
    pub shape: [usize; 4],
    /// Classes, (N,).
    pub labels: Vec<i64>,
    /// Which records.
    pub records: Vec<u64>,
}

/// Shuffled batches without end, epoch after epoch, each a function of seed and position alone.
///
/// An epoch's last records, too few for a batch of every process, are left out of it; the next epoch's order is another.
#[derive(Debug)]
pub struct LatentBatches {
    folder: LatentFolder,
    options: BatchOptions,
    epoch: u64,
    consumed: u64,
    order: Permutation,
}

impl LatentBatches {
    /// From the beginning.
    ///
    /// # Errors
    /// [`Error::Batches`] where there are not enough records for one batch of every process, or no mirror images to flip to.
    pub fn new(folder: LatentFolder, options: BatchOptions) -> Result<Self, Error> {
        let records = folder.len();
        Self::at(folder, options, Position { epoch: 0, consumed: 0, seed: options.seed, records })
    }

    /// From a position that an earlier run gave.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Batches`] where the position is of other data or another seed.
    pub fn at(folder: LatentFolder, options: BatchOptions, position: Position) -> Result<Self, Error> {
        let refuse = |problem| Err(Error::Batches { problem });
        let records = folder.len();
        let world = options.share.world;
        let global = (options.batch_size as u64).saturating_mul(world);
        if global == 0 || global > records {
            return refuse(format!(
                "{records} records do not make a batch of {} for each of {world} processes\n  help: use smaller batches",
                options.batch_size
            ));
        }
        if options.flip == FlipChoice::Random && folder.layout().flips() == Flips::None {
            return refuse(
                "the folder holds no mirror images\n  help: make it with mirror images (flip both), or train without flips"
                    .to_owned(),
            );
        }
        if (position.seed, position.records) != (options.seed, records) || position.consumed > records {
            return refuse(format!(
                "the position is of seed {} and {} records; here are seed {} and {records} records\n  help: continue with the data and seed that the run began with",
                position.seed, position.records, options.seed
            ));
        }
        let order = Permutation::new(records, options.seed, position.epoch);
        Ok(Self { folder, options, epoch: position.epoch, consumed: position.consumed, order })
    }

    /// The records.
    pub fn folder(&self) -> &LatentFolder {
        &self.folder
    }

    /// Batches of one process in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.folder.len() / self.global_batch()
    }

    /// Where it is. Whoever reads ahead keeps, with each batch, the position after it.
    pub fn position(&self) -> Position {
        let (seed, records) = (self.options.seed, self.folder.len());
        Position { epoch: self.epoch, consumed: self.consumed, seed, records }
    }

    /// The next batch of this process, its records read and drawn by all threads of the rayon pool it is called in.
    ///
    /// # Errors
    /// [`Error::Tensors`] where a shard cannot be read.
    pub fn next_batch(&mut self) -> Result<LatentBatch, Error> {
        let (records, global) = (self.folder.len(), self.global_batch());
        if self.consumed + global > records {
            self.epoch += 1;
            self.consumed = 0;
            self.order = Permutation::new(records, self.options.seed, self.epoch);
        }
        let size = self.options.batch_size;
        let layout = *self.folder.layout();
        let first = self.consumed + self.options.share.rank * size as u64;
        let records: Vec<u64> = (first..first + size as u64).map(|place| self.order.at(place)).collect();
        let mut latents = vec![0.0; size * layout.latent_len()];
        let each = latents.par_chunks_exact_mut(layout.latent_len()).zip(&records);
        let labels = each.map(|(latent, &record)| self.read(record, latent)).collect::<Result<_, _>>()?;
        self.consumed += global;
        Ok(LatentBatch { latents, shape: [size, layout.channels(), layout.side(), layout.side()], labels, records })
    }

    /// Draws a record into `latent`, and gives its label.
    fn read(&self, record: u64, latent: &mut [f32]) -> Result<i64, Error> {
        let mut noise = RecordNoise::new(self.options.seed, self.epoch, record);
        let version = match (noise.flip(), self.options.flip) {
            (true, FlipChoice::Random) => PictureVersion::Mirrored,
            (_, FlipChoice::Never) | (false, _) => PictureVersion::AsIs,
        };
        let moments = self.folder.moments(record, version)?;
        match self.options.draw {
            PosteriorDraw::Sample => noise.draw(&moments, latent),
            PosteriorDraw::Mean => latent.iter_mut().zip(moments.mean()).for_each(|(slot, mean)| *slot = mean),
        }
        let missing = || Error::Batches { problem: format!("record {record} has no label") };
        self.folder.label(record).ok_or_else(missing)
    }

    fn global_batch(&self) -> u64 {
        self.options.batch_size as u64 * self.options.share.world
    }
}
