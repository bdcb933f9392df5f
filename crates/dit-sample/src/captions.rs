use std::collections::BTreeMap;

use dit_image::Caption;

use crate::{LateProvenance, Provenance, Shows};

/// What PNGs say about how they were made.
pub(crate) struct Captions {
    pub(crate) provenance: LateProvenance,
    /// Names of classes.
    pub(crate) labels: BTreeMap<u32, String>,
}

impl Captions {
    /// Of a picture of `class`, or of `count` pictures; without a recipe where the files that they depend on cannot be told. Waits for
    /// hashes.
    pub(crate) fn of(
        &self,
        (first_image, classes): (u64, &[u32]),
        shows: Shows,
        (class, count): (Option<u32>, usize),
    ) -> Caption {
        let hashed = self.provenance.get().ok();
        let provenance = hashed.unwrap_or(self.provenance.unhashed());
        let Provenance { settings, checkpoint, software, noise, .. } = provenance;
        let what = match class {
            None => format!("{count} pictures"),
            Some(class) => match self.labels.get(&class) {
                Some(label) => format!("class {class} ({label})"),
                None => format!("class {class}"),
            },
        };
        let from = match noise {
            Some(noise) => format!("noise {}", noise.name),
            None => format!("seed {}", settings.seed),
        };
        let (sampler, steps, scale) = (settings.sampler, &settings.steps, settings.cfg_scale);
        let description = format!("{what}, {}, {sampler} {steps}, guidance {scale}, {from}", checkpoint.name);
        let caption = Caption::default().with_software(software.clone()).with_description(description);
        match hashed.and_then(|provenance| provenance.recipe(first_image, classes, shows)) {
            Some(recipe) => caption.with_recipe(recipe.to_json()),
            None => caption,
        }
    }
}
