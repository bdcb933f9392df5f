use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dit_files::{ensure_folder, ensure_writable};
use dit_image::{Caption, GRID_COLUMNS, NpzWriter, Picture, grid, write_png};
use dit_vae::Latents;
use dit_weights::{MemorySource, TensorView, write_safetensors};

use crate::{Batch, Error, Plan, Provenance, Shows, pipeline::to_vec};

/// The most pictures that a grid may show.
const MOST_IN_GRID: usize = 4096;

/// Where results go. All may be given at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputPaths {
    /// One PNG: a grid of all pictures, or the single picture that a recipe shows.
    pub png: Option<PathBuf>,
    /// A folder for one PNG a picture, `000000.png` and so on.
    pub dir: Option<PathBuf>,
    /// `arr_0`, uint8 (N, H, W, 3).
    pub npz: Option<PathBuf>,
    /// safetensors `latents` (N, C, H, W).
    pub latents: Option<PathBuf>,
}

impl OutputPaths {
    fn has_pictures(&self) -> bool {
        self.png.is_some() || self.dir.is_some() || self.npz.is_some()
    }
}

/// The open outputs of a run. What each batch gives is written at once, so that an interrupted run keeps what it has.
pub struct Outputs {
    paths: OutputPaths,
    provenance: Provenance,
    labels: BTreeMap<u32, String>,
    shows: Shows,
    npz: Option<NpzWriter>,
    /// Pictures of the grid so far.
    grid: Vec<Picture>,
    /// Classes of all images so far, from `first_image` on.
    classes: Vec<u32>,
    first_image: u64,
    latents: LatentRows,
    written: Vec<PathBuf>,
}

#[derive(Default)]
struct LatentRows {
    /// (C, H, W).
    shape: Vec<usize>,
    rows: usize,
    values: Vec<f32>,
}

impl Outputs {
    /// Checks that everything can be written, before anything is computed. `picture_size` is width and height where there is a
    /// codec; `labels` names the classes in captions; `shows` is the recipe's, [`Shows::Grid`] for a new run.
    ///
    /// # Errors
    /// Paths that cannot be written, a grid that is too large, pictures without a codec.
    pub fn create(
        paths: OutputPaths,
        plan: &Plan,
        picture_size: Option<(u32, u32)>,
        provenance: Provenance,
        labels: BTreeMap<u32, String>,
        shows: Shows,
    ) -> Result<Self, Error> {
        if picture_size.is_none() && (paths.has_pictures() || paths.latents.is_none()) {
            return Err(Error::NoVae);
        }
        let count = plan.classes().len();
        if paths.png.is_some() && shows == Shows::Grid && count > MOST_IN_GRID {
            return Err(Error::GridTooLarge { count, most: MOST_IN_GRID });
        }
        for path in [&paths.png, &paths.latents].into_iter().flatten() {
            ensure_writable(path)?;
        }
        if let Some(dir) = &paths.dir {
            ensure_folder(dir)?;
        }
        let npz = match (&paths.npz, picture_size) {
            (Some(path), Some((width, height))) => Some(NpzWriter::create(path, count as u64, width, height)?),
            _ => None,
        };
        Ok(Self {
            paths,
            provenance,
            labels,
            shows,
            npz,
            grid: Vec::new(),
            classes: Vec::new(),
            first_image: plan.first_image(),
            latents: LatentRows::default(),
            written: Vec::new(),
        })
    }

    /// Whether any output needs pictures; if not, nothing has to be decoded.
    pub fn needs_pictures(&self) -> bool {
        self.paths.has_pictures()
    }

    /// Takes a batch's latents (N, C, H, W).
    pub fn push_latents(&mut self, latents: &Latents) {
        if self.paths.latents.is_some() {
            let sizes: Vec<usize> = latents.tensor().size().iter().map(|&size| size as usize).collect();
            self.latents.rows += sizes[0];
            self.latents.shape = sizes[1..].to_vec();
            self.latents.values.extend(to_vec(latents.tensor()));
        }
    }

    /// Takes the picture of image `image` of `batch`, and writes what can be written at once.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn push_picture(&mut self, batch: &Batch, image: u64, picture: Picture) -> Result<(), Error> {
        let class = batch.classes[(image - batch.first_image) as usize];
        let caption = self.caption(batch.first_image, &batch.classes, Shows::Image(image), Some(class));
        if let Some(dir) = &self.paths.dir {
            let path = dir.join(format!("{image:06}.png"));
            write_png(&path, &picture, &caption)?;
            self.written.push(path);
        }
        if let Some(npz) = &mut self.npz {
            npz.push(&picture)?;
        }
        self.classes.push(class);
        match (&self.paths.png, self.shows) {
            (Some(_), Shows::Grid) => self.grid.push(picture),
            (Some(path), Shows::Image(shown)) if shown == image => {
                write_png(path, &picture, &caption)?;
                self.written.push(path.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn caption(&self, first_image: u64, classes: &[u32], shows: Shows, class: Option<u32>) -> Caption {
        let Provenance { settings, checkpoint, software, .. } = &self.provenance;
        let what = match class {
            None => format!("{} pictures", classes.len()),
            Some(class) => match self.labels.get(&class) {
                Some(label) => format!("class {class} ({label})"),
                None => format!("class {class}"),
            },
        };
        let (sampler, steps, scale, seed) = (settings.sampler, &settings.steps, settings.cfg_scale, settings.seed);
        let description = format!("{what}, {}, {sampler} {steps}, guidance {scale}, seed {seed}", checkpoint.name);
        let caption = Caption::default().with_software(software.clone()).with_description(description);
        match self.provenance.recipe(first_image, classes, shows) {
            Some(recipe) => caption.with_recipe(recipe.to_json()),
            None => caption,
        }
    }

    /// Completes every output, and returns the files and folders written.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(&mut self) -> Result<Vec<PathBuf>, Error> {
        if let Some(npz) = self.npz.take() {
            npz.finish()?;
            self.written.extend(self.paths.npz.clone());
        }
        self.finish_grid_and_latents()
    }

    /// Completes the outputs with the images that are finished, and returns the files and folders written.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish_early(&mut self) -> Result<Vec<PathBuf>, Error> {
        if let Some(npz) = self.npz.take()
            && npz.finish_early()? > 0
        {
            self.written.extend(self.paths.npz.clone());
        }
        self.finish_grid_and_latents()
    }

    fn finish_grid_and_latents(&mut self) -> Result<Vec<PathBuf>, Error> {
        if let (Some(path), false) = (&self.paths.png, self.grid.is_empty()) {
            let caption = self.caption(self.first_image, &self.classes, Shows::Grid, None);
            write_png(path, &grid(&self.grid, GRID_COLUMNS)?, &caption)?;
            self.written.push(path.clone());
        }
        if let (Some(path), true) = (&self.paths.latents, self.latents.rows > 0) {
            self.write_latents(path)?;
            self.written.push(path.clone());
        }
        self.grid.clear();
        self.latents = LatentRows::default();
        Ok(std::mem::take(&mut self.written))
    }

    fn write_latents(&self, path: &Path) -> Result<(), Error> {
        let shape = [&[self.latents.rows][..], &self.latents.shape].concat();
        let source = MemorySource::from_iter([("latents", TensorView::from_f32(shape, &self.latents.values)?)]);
        let metadata = BTreeMap::from([("software".to_owned(), self.provenance.software.clone())]);
        Ok(write_safetensors(path, &source, &metadata)?)
    }
}
