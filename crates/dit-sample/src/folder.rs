//! The folder with one PNG a picture: which of its pictures belong to a run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use dit_image::read_recipe;

use crate::{Batch, Error, LateProvenance, Plan, Provenance, Recipe, Shows};

/// The file of image `image` in `dir`.
pub(crate) fn in_folder(dir: &Path, image: u64) -> PathBuf {
    dir.join(format!("{image:06}.png"))
}

/// Whether a file is named as the pictures of a folder are.
pub(crate) fn is_numbered_png(path: &Path) -> bool {
    let digits =
        path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.bytes().all(|b| b.is_ascii_digit()));
    digits && path.extension().is_some_and(|extension| extension == "png")
}

/// Whether the file at `path` says that it is image `image` of `batch`, made as `provenance` makes it.
pub(crate) fn is_made_alike(path: &Path, provenance: &Provenance, batch: &Batch, image: u64) -> bool {
    let wanted = provenance.recipe(batch.first_image, &batch.classes, Shows::Image(image));
    let found = read_recipe(path).ok().and_then(|text| Recipe::from_json(&text).ok());
    wanted.zip(found).is_some_and(|(wanted, found)| wanted.makes_same(&found, image))
}

/// Pictures of a folder that are not those of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Others {
    /// Made otherwise, under numbers of the run: they are replaced.
    pub replaced: usize,
    /// Under other numbers: they stay.
    pub kept: usize,
}

impl Others {
    /// Looks at the numbered PNGs of `dir`; there are none if it cannot be read. Waits for the provenance's hashes only if there is
    /// one to compare.
    ///
    /// # Errors
    /// [`Error::Provenance`].
    pub fn find(dir: &Path, plan: &Plan, provenance: &LateProvenance) -> Result<Self, Error> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut left: BTreeSet<PathBuf> = entries.filter(|path| is_numbered_png(path)).collect();
        let mut replaced = 0;
        for batch in plan.batches() {
            for image in batch.images() {
                let path = in_folder(dir, image);
                if left.remove(&path) && !is_made_alike(&path, provenance.get()?, &batch, image) {
                    replaced += 1;
                }
            }
        }
        Ok(Self { replaced, kept: left.len() })
    }
}
