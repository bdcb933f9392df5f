use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use dit_files::{ensure_folder, ensure_writable};
use dit_image::{Caption, GRID_COLUMNS, NpzWriter, Picture, grid, read_png, write_animation, write_png};
use dit_vae::Latents;

use crate::{
    Batch, Error, LateProvenance, Plan, Provenance, Shows,
    captions::Captions,
    folder::{self, in_folder, is_numbered_png},
    latents_file::LatentsWriter,
    leftovers,
    own_files::OwnFiles,
};

/// The most bytes of pixels that a grid may show: it is put together in memory.
const MOST_IN_GRID: u64 = 256 << 20;

/// Where results go. All may be given at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputPaths {
    /// One PNG: a grid of all pictures, or the single picture that a recipe shows.
    pub png: Option<PathBuf>,
    /// A folder for one PNG a picture, `000000.png` and so on.
    pub dir: Option<PathBuf>,
    /// `arr_0`, uint8 (N, H, W, 3), and `arr_1`, int64 (N,), the classes where pictures have one.
    pub npz: Option<PathBuf>,
    /// safetensors `latents` (N, C, H, W).
    pub latents: Option<PathBuf>,
    /// One animated PNG: all pictures in order.
    pub animation: Option<PathBuf>,
    /// One PNG: a row for each picture, from noise to what it became.
    pub trajectory: Option<PathBuf>,
}

impl OutputPaths {
    fn has_pictures(&self) -> bool {
        [&self.png, &self.dir, &self.npz, &self.animation, &self.trajectory].into_iter().any(Option::is_some)
    }

    /// Whether any file says what it was made with, so that the hashes of a [`Provenance`] have to be found.
    pub fn needs_hashes(&self) -> bool {
        [&self.png, &self.dir, &self.trajectory].into_iter().any(Option::is_some)
    }

    /// Checks that everything can be written, before anything is loaded or computed. `picture_size` is width and height where
    /// there is a codec; `inputs` are files that must not be replaced.
    ///
    /// # Errors
    /// Paths that cannot be written, one path for two things, a grid that is too large, pictures without a codec.
    pub fn check(
        &self,
        plan: &Plan,
        picture_size: Option<(u32, u32)>,
        shows: Shows,
        inputs: &[&Path],
    ) -> Result<(), Error> {
        match picture_size {
            None if self.has_pictures() || self.latents.is_none() => return Err(Error::NoVae),
            Some((width, height)) if self.together(shows) > 0 => {
                let count = plan.classes().len();
                let bytes = self.together(shows) * count as u64 * u64::from(width) * u64::from(height) * 3;
                if bytes > MOST_IN_GRID {
                    return Err(Error::GridTooLarge { count, mebibytes: bytes >> 20 });
                }
            }
            _ => {}
        }
        let files = [&self.png, &self.npz, &self.latents, &self.animation, &self.trajectory];
        let mut taken: Vec<PathBuf> = inputs.iter().filter_map(|path| path.canonicalize().ok()).collect();
        for path in files.into_iter().flatten() {
            ensure_writable(path)?;
            let place = place(path);
            if taken.contains(&place) {
                return Err(Error::SamePath(path.clone()));
            }
            taken.push(place);
        }
        let is_png = |path: &&PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        let pictures = [&self.png, &self.animation, &self.trajectory].into_iter().flatten();
        if let Some(other) = pictures.into_iter().find(|path| !is_png(path)) {
            return Err(Error::NotPng(other.clone()));
        }
        if let Some(dir) = &self.dir {
            ensure_folder(dir)?;
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
            if let Some(input) = taken.iter().find(|input| input.parent() == Some(&dir) && is_numbered_png(input)) {
                return Err(Error::SamePath(input.clone()));
            }
        }
        Ok(())
    }
}

impl OutputPaths {
    /// How many times over the pictures of a run are held in memory, until all are there.
    fn together(&self, shows: Shows) -> u64 {
        let grid = self.png.is_some() && !matches!(shows, Shows::Image(_));
        let columns = if self.trajectory.is_some() { TRAJECTORY_COLUMNS as u64 } else { 0 };
        u64::from(grid) + u64::from(self.animation.is_some()) + columns
    }
}

/// The file that a write to `path` would make or replace.
fn place(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(path.file_name().unwrap_or_default())
    })
}

/// Whether what files are going to tell is what is computed.
fn check_provenance(told: &Provenance, plan: &Plan) -> Result<(), Error> {
    if told.settings != *plan.settings() {
        return Err(Error::OtherSettings);
    }
    if told.batch_size != plan.batch_size() {
        let (found, expected) = (told.batch_size.to_string(), plan.batch_size().to_string());
        return Err(Error::Mismatch { what: "the provenance's batch size", found, with: "the plan's", expected });
    }
    Ok(())
}

/// Pictures in a row of a trajectory, the last one included.
pub(crate) const TRAJECTORY_COLUMNS: usize = 9;
/// Pictures in a row of an interpolation's strip, at most.
const LONGEST_STRIP: usize = 16;
/// How long an animation shows each picture.
const FRAME_MILLISECONDS: u16 = 150;

/// What there is of a run.
#[derive(Debug)]
#[must_use = "something may have failed"]
pub struct Kept {
    /// The files written.
    pub files: Vec<PathBuf>,
    /// Those of them that are parts of arrays, beside the places of the whole ([`dit_files::AtomicFile::commit_partial`]).
    pub parts: Vec<PathBuf>,
    /// Pictures finished.
    pub pictures: usize,
    /// Pictures that were asked for.
    pub of: usize,
    /// The first thing that failed, if something did; the other files are there all the same.
    pub failure: Option<Error>,
}

impl Kept {
    /// With files that were written beside, which come first; and what of that failed.
    pub(crate) fn with_own_files(mut self, (mut own, failure): (Vec<PathBuf>, Option<Error>)) -> Self {
        own.append(&mut self.files);
        Self { files: own, failure: self.failure.or(failure), ..self }
    }
}

/// The open outputs of a run. What each batch gives is written at once, so that an interrupted run keeps what it has.
pub struct Outputs {
    paths: OutputPaths,
    captions: Arc<Captions>,
    own: OwnFiles,
    shows: Shows,
    npz: Option<NpzWriter>,
    latents: Option<LatentsWriter>,
    /// Pictures of the grid so far.
    grid: Vec<Picture>,
    /// Pictures of the animation so far.
    frames: Vec<Picture>,
    /// Rows of the trajectory so far, one after the other, each of `columns` pictures.
    rows: Vec<Picture>,
    columns: usize,
    /// Pictures that were there already.
    found: usize,
    /// Classes of all images of the run, from `first_image` on.
    classes: Vec<u32>,
    first_image: u64,
    /// Pictures taken so far.
    taken: usize,
    written: Vec<PathBuf>,
}

impl Outputs {
    /// Opens the outputs. `picture_size` and `shows` as in [`OutputPaths::check`], which should have been called before;
    /// `labels` names the classes in captions; latents are (C, H, W) of `latent_shape`.
    ///
    /// # Errors
    /// When a file cannot be written; [`Error::OtherSettings`] and [`Error::Mismatch`] where the provenance would tell other ones than the plan's.
    pub fn create(
        paths: OutputPaths,
        plan: &Plan,
        picture_size: Option<(u32, u32)>,
        latent_shape: [i64; 3],
        provenance: impl Into<LateProvenance>,
        labels: BTreeMap<u32, String>,
        shows: Shows,
    ) -> Result<Self, Error> {
        let provenance = provenance.into();
        check_provenance(provenance.unhashed(), plan)?;
        leftovers::remove(&paths);
        let count = plan.classes().len() as u64;
        let npz = match (&paths.npz, picture_size) {
            (Some(path), Some((width, height))) => Some(match plan.labels() {
                Some(labels) => NpzWriter::create_labelled(path, labels.to_vec(), width, height)?,
                None => NpzWriter::create(path, count, width, height)?,
            }),
            _ => None,
        };
        let latents = match &paths.latents {
            Some(path) => Some(LatentsWriter::create(path, latent_shape, &provenance.unhashed().software)?),
            None => None,
        };
        let captions = Arc::new(Captions { provenance, labels });
        Ok(Self {
            own: OwnFiles::new(&paths, shows, &captions),
            paths,
            captions,
            shows,
            npz,
            latents,
            grid: Vec::new(),
            frames: Vec::new(),
            rows: Vec::new(),
            columns: 0,
            found: 0,
            classes: plan.classes().to_vec(),
            first_image: plan.first_image(),
            taken: 0,
            written: Vec::new(),
        })
    }

    /// Whether any output needs pictures; if not, nothing has to be decoded.
    pub fn needs_pictures(&self) -> bool {
        self.paths.has_pictures()
    }

    /// Whether what a walk went through is wanted.
    pub(crate) fn needs_trajectory(&self) -> bool {
        self.paths.trajectory.is_some()
    }

    /// Pictures of the folder that an earlier run had finished, so that they were not computed.
    pub fn found(&self) -> usize {
        self.found
    }

    /// What the files say about how they were made. Its hashes may still be being computed: whoever needs them clones it and waits
    /// for them there, so that these outputs are not locked meanwhile.
    pub(crate) fn provenance(&self) -> &LateProvenance {
        &self.captions.provenance
    }

    /// [`OutputPaths::needs_hashes`].
    pub(crate) fn captions(&self) -> bool {
        self.paths.needs_hashes()
    }

    /// Whether there is a file for every picture of `batch`, however made: hashes are waited for only if there is something to
    /// compare.
    pub(crate) fn may_have(&self, batch: &Batch) -> bool {
        // Latents and trajectories are not in pictures.
        let alone = self.latents.is_none() && self.paths.trajectory.is_none();
        let dir = self.paths.dir.as_ref().filter(|_| alone);
        dir.is_some_and(|dir| batch.images().all(|image| in_folder(dir, image).is_file()))
    }

    /// Whether all pictures of `batch` are in the folder, whole and made as they would be now; if so they are taken over into the
    /// other outputs. A batch of which one is missing is computed again as a whole, so that all come out as in one go.
    ///
    /// # Errors
    /// When another output cannot be written, or the files that pictures depend on cannot be told.
    pub fn take_finished(&mut self, batch: &Batch) -> Result<bool, Error> {
        let Some(dir) = self.paths.dir.clone().filter(|_| self.may_have(batch)) else { return Ok(false) };
        let provenance = self.captions.provenance.get()?;
        let is_finished = |image: u64| folder::is_made_alike(&in_folder(&dir, image), provenance, batch, image);
        if !batch.images().all(is_finished) {
            return Ok(false);
        }
        let mut pictures = Vec::with_capacity(batch.classes.len());
        for image in batch.images() {
            // One that cannot be read after all is made again.
            let Ok(picture) = read_png(in_folder(&dir, image)) else { return Ok(false) };
            pictures.push(picture);
        }
        for (image, picture) in batch.images().zip(pictures) {
            self.found += 1;
            self.collect(image, picture)?;
        }
        Ok(true)
    }

    /// Takes the states that a batch's walk went through, each (N, C, H, W) decoded: `columns` lists, N pictures each.
    pub(crate) fn push_trajectory(&mut self, columns: &[Vec<Picture>]) {
        let images = columns.first().map_or(0, Vec::len);
        self.columns = columns.len();
        for image in 0..images {
            self.rows.extend(columns.iter().filter_map(|column| column.get(image).cloned()));
        }
    }

    /// Takes a batch's latents (N, C, H, W).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push_latents(&mut self, latents: &Latents) -> Result<(), Error> {
        match &mut self.latents {
            Some(writer) => writer.push(latents),
            None => Ok(()),
        }
    }

    /// Takes one picture of `batch`; images come in order.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn push_picture(&mut self, batch: &Batch, image: u64, picture: Picture) -> Result<(), Error> {
        // The picture's own files come last, as they wait for hashes: what all pictures go into has it by then.
        let own = self.own.are_wanted().then(|| picture.clone());
        self.collect(image, picture)?;
        own.map_or(Ok(()), |picture| self.own.write(batch, image, &picture, &mut self.written))
    }

    /// The files of one picture each.
    pub(crate) fn own_files(&self) -> &OwnFiles {
        &self.own
    }

    /// What all pictures go into.
    pub(crate) fn collect(&mut self, image: u64, picture: Picture) -> Result<(), Error> {
        if let Some(npz) = &mut self.npz {
            npz.push(&picture)?;
        }
        let in_grid = match self.shows {
            Shows::Grid => true,
            Shows::First(count) => (self.taken as u64) < count,
            Shows::Image(_) => false,
        };
        tracing::trace!(image, "picture");
        if self.paths.animation.is_some() {
            self.frames.push(picture.clone());
        }
        if self.paths.png.is_some() && in_grid {
            self.grid.push(picture);
        }
        self.taken += 1;
        Ok(())
    }

    /// Completes every output, each even if another fails. [`Error::Provenance`] is a failure where files had to be written without
    /// their recipe.
    pub fn finish(self) -> Kept {
        let path = self.paths.npz.clone();
        let provenance = self.captions().then(|| self.captions.provenance.clone());
        let kept = self.complete(|npz| npz.finish().map(|()| path));
        let unknown = provenance.and_then(|provenance| provenance.get().err());
        Kept { failure: kept.failure.or(unknown), ..kept }
    }

    /// As [`finish`](Self::finish), with the images that there are; arrays that lack some are kept beside their places, and files
    /// whose recipe is not known lack it.
    pub fn finish_early(self) -> Kept {
        self.complete(NpzWriter::finish_early)
    }

    fn complete(mut self, npz: impl FnOnce(NpzWriter) -> dit_image::Result<Option<PathBuf>>) -> Kept {
        let (pictures, of) = (self.taken, self.classes.len());
        // What needs no hashes comes first.
        let npz = self.npz.take().map_or(Ok(None), npz).map_err(Error::from);
        let latents = self.latents.take().map_or(Ok(None), |latents| latents.finish(of as u64));
        let mut parts = Vec::new();
        for (found, asked) in [(&npz, &self.paths.npz), (&latents, &self.paths.latents)] {
            parts.extend(found.iter().flatten().filter(|path| asked.as_ref() != Some(path)).cloned());
        }
        let mut failure = None;
        for path in [self.write_grid(), npz, latents, self.write_animation(), self.write_trajectory()] {
            match path {
                Ok(path) => self.written.extend(path),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Kept { files: self.written, parts, pictures, of, failure }
    }

    /// Writes the grid, if there is one; says where.
    fn write_grid(&self) -> Result<Option<PathBuf>, Error> {
        let (Some(path), false) = (&self.paths.png, self.grid.is_empty()) else { return Ok(None) };
        // Stopped within a batch: the recipe has the whole batch, as its size moves the last bits of sums.
        let batch_size = self.captions.provenance.unhashed().batch_size;
        let computed = self.taken.next_multiple_of(batch_size).min(self.classes.len());
        let shown = self.grid.len();
        let shows = if shown == computed { Shows::Grid } else { Shows::First(shown as u64) };
        let classes = self.classes.get(..computed).unwrap_or(&self.classes);
        let caption = self.captions.of((self.first_image, classes), shows, (None, shown));
        // An interpolation is a strip.
        let columns = match self.captions.provenance.unhashed().settings.interpolate {
            Some(_) => NonZeroUsize::new(shown.min(LONGEST_STRIP)).unwrap_or(GRID_COLUMNS),
            None => GRID_COLUMNS,
        };
        write_png(path, &grid(&self.grid, columns)?, &caption)?;
        Ok(Some(path.clone()))
    }

    fn write_animation(&self) -> Result<Option<PathBuf>, Error> {
        let (Some(path), false) = (&self.paths.animation, self.frames.is_empty()) else { return Ok(None) };
        write_animation(path, &self.frames, FRAME_MILLISECONDS)?;
        Ok(Some(path.clone()))
    }

    fn write_trajectory(&self) -> Result<Option<PathBuf>, Error> {
        let (Some(path), false) = (&self.paths.trajectory, self.rows.is_empty()) else { return Ok(None) };
        let columns = NonZeroUsize::new(self.columns).unwrap_or(GRID_COLUMNS);
        // A file's name may be the one that a recipe knows it by.
        let Provenance { checkpoint, software, .. } =
            self.captions.provenance.get().unwrap_or(self.captions.provenance.unhashed());
        let description = format!("{} walks from noise, {}", self.rows.len() / columns.get(), checkpoint.name);
        let caption = Caption::default().with_software(software.clone()).with_description(description);
        write_png(path, &grid(&self.rows, columns)?, &caption)?;
        Ok(Some(path.clone()))
    }
}
