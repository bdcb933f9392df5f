use serde::{Deserialize, Serialize};

use crate::{Error, LabelPolicy, Settings};

/// The version of the recipe's form; another one is refused.
const VERSION: u32 = 1;

/// A file that a picture depends on: how it was named, and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The name or path as the user gave it.
    pub name: String,
    /// SHA-256 of its content, lower-case hexadecimal.
    pub sha256: String,
}

/// What a file shows of the recipe's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shows {
    /// All, as one grid.
    Grid,
    /// The first few, as one grid: of a run that was interrupted within a batch.
    First(u64),
    /// One, by its index.
    Image(u64),
}

/// Everything that determines the bytes of a picture on one machine; written as JSON into every PNG.
///
/// A batch is computed as a whole, and its size moves the last bits of sums: so the recipe of a single picture holds the
/// batch that it was in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    version: u32,
    /// Who wrote it, such as `dit-rs 0.1.0`.
    pub software: String,
    /// The transformer's weights.
    pub checkpoint: Source,
    /// What the user had to say about the checkpoint, such as `--model DiT-XL/2`; empty for most.
    #[serde(default, skip_serializing_if = "OpenedAs::is_empty")]
    pub opened_as: OpenedAs,
    /// The latent codec's weights.
    pub vae: Source,
    /// How it was sampled.
    pub settings: Settings,
    /// The noise file that was replayed, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Source>,
    /// The checkpoint that autoguidance guided away from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weaker: Option<Source>,
    /// The classifier that guided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Source>,
    /// The picture that walks started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Source>,
    /// How the classes were chosen.
    #[serde(default, skip_serializing_if = "LabelPolicy::is_balanced")]
    pub labels: LabelPolicy,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
    /// Pictures computed at once.
    pub batch_size: usize,
    /// Index of the first image below.
    pub first_image: u64,
    /// Class of each image, from `first_image` on.
    pub classes: Vec<u32>,
    /// Which of them the file shows.
    pub shows: Shows,
}

/// What a checkpoint left open and the user said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenedAs {
    /// A standard model's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Attention heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_heads: Option<usize>,
}

impl OpenedAs {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What all pictures of a run share; [`Provenance::recipe`] adds what they do not.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // as in `Recipe`
pub struct Provenance {
    pub software: String,
    pub checkpoint: Source,
    pub opened_as: OpenedAs,
    pub vae: Option<Source>,
    pub settings: Settings,
    pub noise: Option<Source>,
    pub weaker: Option<Source>,
    pub classifier: Option<Source>,
    pub init: Option<Source>,
    pub labels: LabelPolicy,
    pub device: String,
    pub threads: usize,
    pub batch_size: usize,
}

impl Provenance {
    /// The recipe of a file that shows some of `classes`' images; none without a VAE, as there are no pictures then.
    pub fn recipe(&self, first_image: u64, classes: &[u32], shows: Shows) -> Option<Recipe> {
        Some(Recipe {
            version: VERSION,
            software: self.software.clone(),
            checkpoint: self.checkpoint.clone(),
            opened_as: self.opened_as.clone(),
            vae: self.vae.clone()?,
            settings: self.settings.clone(),
            noise: self.noise.clone(),
            weaker: self.weaker.clone(),
            classifier: self.classifier.clone(),
            init: self.init.clone(),
            labels: self.labels,
            device: self.device.clone(),
            threads: self.threads,
            batch_size: self.batch_size,
            first_image,
            classes: classes.to_vec(),
            shows,
        })
    }
}

impl Recipe {
    /// The recipe as JSON on one line.
    pub fn to_json(&self) -> String {
        // No map with keys other than strings and no fallible serializer is in it.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether image `image` of this recipe is made as that image of `other`: which batch it was in, on how many threads and under
    /// which names its files were found does not count.
    pub fn makes_same(&self, other: &Self, image: u64) -> bool {
        let class = |recipe: &Self| {
            let place = usize::try_from(image.checked_sub(recipe.first_image)?).ok()?;
            recipe.classes.get(place).copied()
        };
        let files = |recipe: &Self| {
            let hash = |source: &Option<Source>| source.as_ref().map(|source| source.sha256.clone());
            let optional = [&recipe.noise, &recipe.weaker, &recipe.classifier, &recipe.init].map(hash);
            (recipe.checkpoint.sha256.clone(), recipe.vae.sha256.clone(), optional)
        };
        class(self).is_some()
            && class(self) == class(other)
            && self.settings == other.settings
            && self.opened_as == other.opened_as
            && files(self) == files(other)
    }

    /// Reads [`Recipe::to_json`]'s text.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not one, is of another version, or contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text).map_err(|error| Error::Recipe(error.to_string()))?;
        if version != VERSION {
            return Err(Error::Recipe(format!("it is of version {version}; this program reads version {VERSION}")));
        }
        let recipe: Self = serde_json::from_str(text).map_err(|error| Error::Recipe(error.to_string()))?;
        if recipe.classes.is_empty() || recipe.batch_size == 0 || recipe.threads == 0 {
            return Err(Error::Recipe("it has no classes, or a batch size or thread count of 0".to_owned()));
        }
        let images = recipe.classes.len() as u64;
        let shown = match recipe.shows {
            Shows::Grid => Some(0),
            Shows::First(count) => (count > 0).then(|| count - 1),
            Shows::Image(image) => image.checked_sub(recipe.first_image),
        };
        if recipe.first_image.checked_add(images).is_none() || shown.is_none_or(|shown| shown >= images) {
            return Err(Error::Recipe("it shows an image that is not among its own".to_owned()));
        }
        Ok(recipe)
    }
}
