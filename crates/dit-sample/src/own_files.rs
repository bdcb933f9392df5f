use std::{path::PathBuf, sync::Arc};

use dit_image::{Picture, write_png};

use crate::{Batch, Error, OutputPaths, Shows, captions::Captions, folder::in_folder};

/// The PNGs that hold one picture each. They need nothing of the other outputs, and can be written beside them.
#[derive(Clone)]
pub(crate) struct OwnFiles {
    /// A folder that has all of them.
    dir: Option<PathBuf>,
    /// One picture's file, and which it is.
    single: Option<(PathBuf, u64)>,
    captions: Arc<Captions>,
}

impl OwnFiles {
    pub(crate) fn new(paths: &OutputPaths, shows: Shows, captions: &Arc<Captions>) -> Self {
        let single = match shows {
            Shows::Image(image) => paths.png.clone().map(|path| (path, image)),
            Shows::Grid | Shows::First(_) => None,
        };
        Self { dir: paths.dir.clone(), single, captions: Arc::clone(captions) }
    }

    /// Whether there are any.
    pub(crate) fn are_wanted(&self) -> bool {
        self.dir.is_some() || self.single.is_some()
    }

    /// Writes those of a picture of `batch`, and adds them to `written`. Waits for hashes.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(crate) fn write(
        &self,
        batch: &Batch,
        image: u64,
        picture: &Picture,
        written: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        let in_dir = self.dir.as_ref().map(|dir| in_folder(dir, image));
        let single = self.single.as_ref().filter(|(_, shown)| *shown == image).map(|(path, _)| path.clone());
        for path in [in_dir, single].into_iter().flatten() {
            let class = batch.classes.get(image.saturating_sub(batch.first_image) as usize).copied();
            let of = (batch.first_image, &batch.classes[..]);
            write_png(&path, picture, &self.captions.of(of, Shows::Image(image), (class, 1)))?;
            written.push(path);
        }
        Ok(())
    }
}
