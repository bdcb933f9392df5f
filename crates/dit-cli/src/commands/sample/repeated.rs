//! A recipe that is repeated, in whole or in part, and whether its files are still those.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use dit_args::SampleArgs;
use dit_image::read_recipe;
use dit_sample::{Provenance, Recipe, Shows, Source};

/// What `--from-png` brings.
pub struct Repeated {
    pub recipe: Recipe,
    /// Other images than the recipe's are asked for.
    new_images: bool,
    /// Which of the recipe's files the user replaced: their hashes need not be the recipe's.
    replaced: Replaced,
}

struct Replaced {
    checkpoint: bool,
    vae: bool,
    noise: bool,
    weaker: bool,
    classifier: bool,
    init: bool,
}

impl Repeated {
    /// Nothing where no PNG is named.
    pub fn from_args(args: &SampleArgs) -> Result<Option<Self>> {
        let Some(path) = &args.from_png else { return Ok(None) };
        let recipe = Recipe::from_json(&read_recipe(path)?)?;
        let new_images = args.class.is_some()
            || args.num_samples.is_some()
            || args.labels.is_some()
            || args.editing.interpolate.is_some()
            || args.editing.frames.is_some();
        let replaced = Replaced {
            checkpoint: args.ckpt.is_some(),
            vae: args.vae.is_some(),
            noise: args.noise.is_some(),
            weaker: args.guidance.autoguidance.is_some(),
            classifier: args.guidance.classifier.is_some(),
            init: args.editing.init.is_some(),
        };
        Ok(Some(Self { recipe, new_images, replaced }))
    }

    /// Whether what `flag` would name is the recipe's.
    pub fn names(&self, flag: &str) -> bool {
        let Replaced { checkpoint, vae, noise, weaker, classifier, init } = self.replaced;
        let flags = [
            ("--ckpt", checkpoint),
            ("--vae", vae),
            ("--noise", noise),
            ("--autoguidance", weaker),
            ("--classifier", classifier),
            ("--init", init),
        ];
        flags.contains(&(flag, false))
    }

    /// The recipe, where its images are asked for again. With others, its batch, and what it showed of it, no longer hold; all
    /// else does.
    pub fn of_same_images(&self) -> Option<&Recipe> {
        (!self.new_images).then_some(&self.recipe)
    }

    /// The different classes that are seen on the recipe's file.
    pub fn shown_classes(&self) -> Vec<u32> {
        let recipe = &self.recipe;
        let (skipped, count) = match recipe.shows {
            Shows::Grid => (0, usize::MAX),
            Shows::First(count) => (0, count as usize),
            Shows::Image(image) => (image.saturating_sub(recipe.first_image) as usize, 1),
        };
        let shown: BTreeSet<u32> = recipe.classes.iter().copied().skip(skipped).take(count).collect();
        shown.into_iter().collect()
    }

    /// The recipe's own name for a file, where it is the same file: so that the picture comes out the same to the byte.
    pub fn named_as_before(&self, source: Source) -> Source {
        let recipe = &self.recipe;
        let known = [
            Some(&recipe.checkpoint),
            Some(&recipe.vae),
            recipe.noise.as_ref(),
            recipe.weaker.as_ref(),
            recipe.classifier.as_ref(),
            recipe.init.as_ref(),
        ];
        let same: Vec<&Source> = known.into_iter().flatten().filter(|known| known.sha256 == source.sha256).collect();
        // One file may have two parts, under two names.
        let named = same.iter().find(|known| known.name == source.name).or(same.first());
        match named {
            Some(&known) => known.clone(),
            None => source,
        }
    }

    /// Whether the files are the recipe's.
    pub fn check_sources(&self, now: &Provenance) -> Result<()> {
        let Self { recipe, replaced, .. } = self;
        let sources = [
            ("checkpoint", "--ckpt", replaced.checkpoint, Some(&recipe.checkpoint), Some(&now.checkpoint)),
            ("VAE", "--vae", replaced.vae, Some(&recipe.vae), now.vae.as_ref()),
            ("noise", "--noise", replaced.noise, recipe.noise.as_ref(), now.noise.as_ref()),
            ("weaker checkpoint", "--autoguidance", replaced.weaker, recipe.weaker.as_ref(), now.weaker.as_ref()),
            ("classifier", "--classifier", replaced.classifier, recipe.classifier.as_ref(), now.classifier.as_ref()),
            ("picture to start from", "--init", replaced.init, recipe.init.as_ref(), now.init.as_ref()),
        ];
        for (what, flag, replaced, then, now) in sources {
            if let (false, Some(then), Some(now)) = (replaced, then, now)
                && then.sha256 != now.sha256
            {
                bail!(
                    "the {what} {} is not the one that made the picture: its SHA-256 is {}, was {}\n  \
                     help: pass {flag} to sample with another one anyway",
                    now.name,
                    now.sha256,
                    then.sha256
                );
            }
        }
        Ok(())
    }
}
