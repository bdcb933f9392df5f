use std::path::{Path, PathBuf};

use dit_weights::{SafetensorsFile, TensorSource};

use super::{
    Flips, Manifest, MomentsLayout, Store,
    shard_file::{labels, open_shard},
    verify,
};
use crate::Error;

/// A finished folder of latents, memory-mapped.
///
/// Invariants: every shard has the length, the tensors and the shapes that the manifest gives it, and every label is that of a
/// class. Whether its values are still those that were written, [`open_verified`](Self::open_verified) tells.
///
/// The files must not be shortened while this is open: that would end the process.
#[derive(Debug)]
pub struct LatentFolder {
    path: PathBuf,
    manifest: Manifest,
    layout: MomentsLayout,
    shards: Vec<SafetensorsFile>,
    /// The number of records before each shard, and at the end that of all.
    starts: Vec<u64>,
    labels: Vec<i64>,
    /// The records that take part, of all; all where there is no list.
    chosen: Option<Vec<u64>>,
}

/// The stored moments of one record and one mirror image: a posterior, raw (unscaled).
#[derive(Debug, Clone, Copy)]
pub struct MomentsView<'a> {
    store: Store,
    mean: &'a [u8],
    logvar: &'a [u8],
}

impl MomentsView<'_> {
    /// The mean, (C, h, w), row-major.
    pub fn mean(&self) -> impl Iterator<Item = f32> {
        self.store.values(self.mean)
    }

    /// The natural logarithm of the variance, (C, h, w), row-major.
    pub fn logvar(&self) -> impl Iterator<Item = f32> {
        self.store.values(self.logvar)
    }
}

impl LatentFolder {
    /// Maps the shards of `folder`, and checks lengths, shapes and labels.
    ///
    /// # Errors
    /// [`Error::Damaged`] lists every shard that is not as it should be; [`Error::Unfinished`]; [`Error::NotLatents`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let path = folder.as_ref().to_owned();
        let manifest = Manifest::read(&path)?;
        let not_latents = |problem| Error::NotLatents { path: path.clone(), problem, help: "write to another folder" };
        let layout = manifest.settings.layout().map_err(not_latents)?;
        if manifest.summary.is_none() {
            let (done, total) = (manifest.shards.len(), manifest.settings.shard_count());
            return Err(Error::Unfinished { path, done, total });
        }
        let (mut shards, mut starts, mut all_labels) = (Vec::new(), vec![0], Vec::new());
        let mut problems = Vec::new();
        for entry in &manifest.shards {
            match open_shard(&path, entry, &layout) {
                Ok(file) => {
                    all_labels.extend(labels(&file)?);
                    starts.push(all_labels.len() as u64);
                    shards.push(file);
                }
                Err(problem) => problems.push(format!("{}: {problem}", entry.file)),
            }
        }
        let classes = manifest.class_names.len();
        let is_class = |label: &i64| usize::try_from(*label).is_ok_and(|label| label < classes);
        if let Some(label) = all_labels.iter().find(|label| !is_class(label)) {
            problems.push(format!("label {label}: there are {classes} classes"));
        }
        if !problems.is_empty() {
            return Err(Error::Damaged { path, problems });
        }
        Ok(Self { path, manifest, layout, shards, starts, labels: all_labels, chosen: None })
    }

    /// [`open`](Self::open), after every byte was compared with the manifest's SHA-256.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`verify`](super::verify()).
    pub fn open_verified(folder: impl AsRef<Path>) -> Result<Self, Error> {
        verify::verify(folder.as_ref())?;
        Self::open(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is. `settings.vae.config` has the scale that raw latents are to be given, in one place, by whoever trains.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The shape of a record's moments.
    pub fn layout(&self) -> &MomentsLayout {
        &self.layout
    }

    /// The same folder as if it held only `records` of those that it now has, in their order, counted anew from 0: a part to
    /// train on, and one to validate on.
    ///
    /// # Errors
    /// [`Error::Batches`] for a record that is not there.
    pub fn keeping(mut self, records: &[u64]) -> Result<Self, Error> {
        let missing = |record| Error::Batches { problem: format!("there is no record {record} among {}", self.len()) };
        let pick = |&record: &u64| Some((self.stored(record)?, self.label(record)?));
        let picked: Result<Vec<(u64, i64)>, Error> =
            records.iter().map(|record| pick(record).ok_or_else(|| missing(*record))).collect();
        let (chosen, labels) = picked?.into_iter().unzip();
        (self.chosen, self.labels) = (Some(chosen), labels);
        Ok(self)
    }

    /// Where a record is among those of all shards.
    fn stored(&self, record: u64) -> Option<u64> {
        let index = usize::try_from(record).ok()?;
        match &self.chosen {
            Some(chosen) => chosen.get(index).copied(),
            None => (index < self.labels.len()).then_some(record),
        }
    }

    /// Records in all shards, or as many as were [kept](Self::keeping).
    pub fn len(&self) -> u64 {
        self.labels.len() as u64
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The class of a record.
    pub fn label(&self, record: u64) -> Option<i64> {
        self.labels.get(usize::try_from(record).ok()?).copied()
    }

    /// The moments of a record: of the picture, or of its `mirrored` image.
    ///
    /// # Errors
    /// [`Error::Batches`] for a record or mirror image that is not there.
    pub fn moments(&self, record: u64, version: PictureVersion) -> Result<MomentsView<'_>, Error> {
        let missing = || Error::Batches { problem: format!("there is no record {record} among {}", self.len()) };
        let flip = match (version, self.layout.flips()) {
            (PictureVersion::AsIs, _) => 0,
            (PictureVersion::Mirrored, Flips::Both) => 1,
            (PictureVersion::Mirrored, Flips::None) => {
                let problem = "the folder holds no mirror images\n  help: make it with mirror images (flip both), or train without flips";
                return Err(Error::Batches { problem: problem.to_owned() });
            }
        };
        let (shard, index) = self.stored(record).and_then(|record| self.place(record)).ok_or_else(missing)?;
        let data = match shard.read("moments")?.into_data() {
            std::borrow::Cow::Borrowed(data) => data,
            std::borrow::Cow::Owned(_) => return Err(missing()), // a mapped file lends its values
        };
        let half = self.layout.latent_len() * self.layout.store().dtype().size();
        let start = index * self.layout.record_bytes() + flip * 2 * half;
        let (mean, logvar) =
            data.get(start..start + 2 * half).and_then(|both| both.split_at_checked(half)).ok_or_else(missing)?;
        Ok(MomentsView { store: self.layout.store(), mean, logvar })
    }

    /// The names of all records of one shard, in their order, those not kept included.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the shard does not list them.
    pub fn keys(&self, shard: usize) -> Result<Vec<String>, Error> {
        let damaged = |problem: &str| Error::Damaged { path: self.path.clone(), problems: vec![problem.to_owned()] };
        let file = self.shards.get(shard).ok_or_else(|| damaged(&format!("there is no shard {shard}")))?;
        let text = file.metadata().get("keys").ok_or_else(|| damaged("a shard without keys"))?;
        let keys: Vec<String> = serde_json::from_str(text).map_err(|error| damaged(&error.to_string()))?;
        let expected = self.manifest.shards.get(shard).map(|entry| entry.records);
        if Some(keys.len() as u64) != expected {
            return Err(damaged("a shard with another number of keys than records"));
        }
        Ok(keys)
    }

    /// The shard of a record among all, and its place in it.
    fn place(&self, record: u64) -> Option<(&SafetensorsFile, usize)> {
        let shard = self.starts.partition_point(|&start| start <= record).checked_sub(1)?;
        let start = self.starts.get(shard)?;
        Some((self.shards.get(shard)?, usize::try_from(record - start).ok()?))
    }
}

/// A picture or its horizontal mirror image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureVersion {
    /// As it is.
    AsIs,
    /// Left and right exchanged.
    Mirrored,
}
