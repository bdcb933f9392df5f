//! The latents of a run: which are trained on, which are held out, and whether they suit the recipe.

use std::path::Path;

use dit_data::shard::{BatchOptions, FlipChoice, LatentBatches, LatentFolder, Position, PosteriorDraw, Share};
use dit_model::{DitConfig, LatentSize};
use dit_recipe::{DataShape, Flip, HeldOut, Posterior, Recipe};
use dit_vae::LatentScale;
use dit_weights::{Codec, sha256_of};

use crate::{
    TrainError,
    checkpoint::DataIdentity,
    feed::Labels,
    random::{self, Moment, Purpose},
};

/// The folders of a run and how its records are divided.
#[derive(Debug)]
pub(crate) struct RunData {
    folder: std::path::PathBuf,
    /// Of the folder; all of it where none is held out.
    training: Option<Vec<u64>>,
    held_out: Option<LatentFolder>,
    pub(crate) config: DitConfig,
    pub(crate) scale: LatentScale,
    pub(crate) class_names: Vec<String>,
    /// Whose latents they are.
    pub(crate) codec: Codec,
    pub(crate) identity: DataIdentity,
}

impl RunData {
    pub(crate) fn open(recipe: &Recipe, path: &Path) -> Result<Self, TrainError> {
        let folder = LatentFolder::open(path)?;
        let manifest = folder.manifest();
        let layout = *folder.layout();
        let shape = DataShape {
            latent: LatentSize::square(layout.side()),
            channels: layout.channels(),
            num_classes: manifest.class_names.len(),
        };
        let config = recipe.model_config(shape)?;
        let scale = LatentScale::of(&manifest.settings.vae.config);
        let class_names = manifest.class_names.clone();
        let vae = &manifest.settings.vae;
        let codec = Codec::new(&vae.name, vae.sha256.clone());
        let mut held_out_identity = None;
        let (training, held_out) = match &recipe.validation.held_out {
            HeldOut::None => (None, None),
            HeldOut::Fraction(fraction) => {
                let (training, held_out) = divide(folder.len(), *fraction);
                if held_out.is_empty() {
                    let problem = format!("{fraction} of {} records is none to hold out", folder.len());
                    let help = "hold out a larger fraction, or a folder of other latents";
                    return Err(TrainError::Unfit { problems: vec![problem], help });
                }
                (Some(training), Some(folder.keeping(&held_out)?))
            }
            HeldOut::Folder(other) => {
                let other = Path::new(other);
                let held_out = LatentFolder::open(other)?;
                check_alike(path, &LatentFolder::open(path)?, &held_out)?;
                held_out_identity = Some(manifest_hash(other)?);
                (None, Some(held_out))
            }
        };
        let identity = DataIdentity { manifest: manifest_hash(path)?, held_out: held_out_identity };
        Ok(Self { folder: path.to_owned(), training, held_out, config, scale, class_names, codec, identity })
    }

    /// The held-out records, once.
    pub(crate) fn take_held_out(&mut self) -> Option<LatentFolder> {
        self.held_out.take()
    }

    /// Batches from a position on, or from the beginning.
    pub(crate) fn batches(&self, recipe: &Recipe, from: Option<Position>) -> Result<LatentBatches, TrainError> {
        let folder = LatentFolder::open(&self.folder)?;
        let folder = match &self.training {
            Some(records) => folder.keeping(records)?,
            None => folder,
        };
        let options = BatchOptions {
            batch_size: recipe.train.batch_size,
            seed: recipe.train.seed,
            share: Share::ALL,
            flip: match recipe.data.flip {
                Flip::Random => FlipChoice::Random,
                Flip::Never => FlipChoice::Never,
            },
            draw: posterior_draw(recipe),
        };
        Ok(match from {
            Some(position) => LatentBatches::at(folder, options, position)?,
            None => LatentBatches::new(folder, options)?,
        })
    }

    /// What becomes of labels in training.
    pub(crate) fn labels(&self, recipe: &Recipe) -> Labels {
        match self.config.null_class() {
            _ if recipe.model.unconditional => Labels::Ignored,
            Some(null_class) => {
                Labels::Dropped { probability: recipe.data.label_dropout, null_class: null_class as i64 }
            }
            None => Labels::Kept,
        }
    }
}

pub(crate) fn posterior_draw(recipe: &Recipe) -> PosteriorDraw {
    match recipe.data.posterior {
        Posterior::Sample => PosteriorDraw::Sample,
        Posterior::Mean => PosteriorDraw::Mean,
    }
}

/// Records to train on and to hold out: each is held out with probability `fraction`, by its place alone, so that every run of
/// the same data holds out the same ones, whatever its seed.
fn divide(records: u64, fraction: f64) -> (Vec<u64>, Vec<u64>) {
    let mut rng = random::generator(Moment { seed: 0, step: 0, rollbacks: 0 }, Purpose::HeldOut);
    (0..records).partition(|_| random::unit(&mut rng) >= fraction)
}

fn manifest_hash(folder: &Path) -> Result<String, TrainError> {
    Ok(sha256_of(&[folder.join("manifest.json")])?)
}

/// Whether what is learned on one folder can be measured on the other.
fn check_alike(path: &Path, training: &LatentFolder, held_out: &LatentFolder) -> Result<(), TrainError> {
    let (here, there) = (training.manifest(), held_out.manifest());
    let mut problems = Vec::new();
    if here.settings.vae.sha256 != there.settings.vae.sha256 {
        problems.push("the held-out latents are of another VAE".to_owned());
    }
    if (training.layout().channels(), training.layout().side())
        != (held_out.layout().channels(), held_out.layout().side())
    {
        problems.push("the held-out latents have another size".to_owned());
    }
    if here.class_names != there.class_names {
        problems.push(format!("the classes of the held-out latents are not those of {}", path.display()));
    }
    let help = "make the held-out latents as the others were, with the same VAE, image size and classes";
    if problems.is_empty() { Ok(()) } else { Err(TrainError::Unfit { problems, help }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_divided_evenly_and_always_alike() {
        let (training, held_out) = divide(100_000, 0.02);
        assert_eq!(training.len() + held_out.len(), 100_000);
        assert!((1900..2100).contains(&held_out.len()), "{}", held_out.len());
        // Folders are sorted by class: every part of them must give its share.
        for part in 0..10_u64 {
            let count = held_out.iter().filter(|&&record| record / 10_000 == part).count();
            assert!((140..260).contains(&count), "part {part}: {count}");
        }
        assert_eq!(divide(100_000, 0.02).1, held_out);
        let longer = divide(100_001, 0.02).1;
        assert_eq!(longer[..held_out.len()], held_out[..]);
    }
}
