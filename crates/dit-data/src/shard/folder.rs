use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use dit_files::{Lock, is_unfinished, sync_folder, write_atomically};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{
    Journals, Manifest, Settings, ShardBuffer, ShardEntry, Skipped, Summary, journal,
    manifest::{MANIFEST, SKIPPED},
    shard_file::{labels, open_shard},
    statistics, verify,
};
use crate::Error;

const LOCK: &str = ".lock";

/// The one process that writes a folder of latents.
///
/// Invariant: the folder is locked while this lives, its manifest is of these settings, and every shard in it was whole and
/// as hashed when it was opened or committed.
#[derive(Debug)]
pub struct FolderWriter {
    folder: PathBuf,
    manifest: Manifest,
    skipped: Vec<Skipped>,
    journals: Journals,
    _lock: Lock,
}

/// A shard that is still to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its place among the shards.
    pub index: usize,
    /// The first record of the source.
    pub first: u64,
    /// Records that it covers.
    pub covered: u64,
}

impl FolderWriter {
    /// Begins or continues `folder`. Shards that are there are hashed; those that are not as the manifest says are to be made
    /// again.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process writes there, [`Error::DifferentSettings`] with every difference,
    /// [`Error::NotLatents`] where the folder holds something else, [`Error::Settings`] where the codec cannot encode pictures of
    /// that size, [`Error::Io`].
    pub fn open(folder: &Path, settings: Settings, class_names: Vec<String>) -> Result<Self, Error> {
        let not_latents = |problem, help| Error::NotLatents { path: folder.to_owned(), problem, help };
        let help = "choose another size of pictures, or another VAE";
        let layout = settings.layout().map_err(|problem| Error::Settings { problem, help })?;
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        if !Manifest::is_in(folder) && holds_other_files(folder).map_err(failed("read", folder))? {
            return Err(not_latents("it is not empty, and has no manifest".to_owned(), "write to another folder"));
        }
        let path = folder.join(LOCK);
        let lock = Lock::try_take(&path).map_err(failed("lock", &path))?;
        let lock = lock.ok_or_else(|| Error::Locked { path: folder.to_owned() })?;
        remove_temporaries(folder).map_err(failed("read", folder))?;
        let begun = Manifest::is_in(folder);
        let mut manifest =
            if begun { Manifest::read(folder)? } else { Manifest::new(settings.clone(), class_names.clone()) };
        let mut differences = manifest.settings.differences(&settings);
        if manifest.class_names != class_names {
            differences.push("class_names: others there than asked for".to_owned());
        }
        if !differences.is_empty() {
            return Err(Error::DifferentSettings { path: folder.to_owned(), differences });
        }
        let listed = manifest.shards.len();
        let mut skipped = read_skipped(folder);
        let intact = manifest.summary.as_ref().is_none_or(|summary| {
            verify::sha256_of(&folder.join(SKIPPED)).is_ok_and(|sha256| sha256 == summary.skipped_sha256)
        });
        if !intact {
            skipped.clear();
        }
        let problems: Vec<Option<String>> =
            manifest.shards.par_iter().map(|entry| verify::problem_of(folder, entry, &layout)).collect();
        let mut problems = problems.into_iter();
        manifest.shards.retain(|entry| {
            let (first, end) = (entry.first_record, entry.first_record + entry.records + entry.skipped);
            let listed = skipped.iter().filter(|skipped| (first..end).contains(&skipped.record)).count() as u64;
            let problem = problems.next().flatten().or_else(|| {
                (listed != entry.skipped)
                    .then(|| format!("{SKIPPED} lists {listed} of its {} skipped records", entry.skipped))
            });
            if let Some(problem) = &problem {
                tracing::warn!("{} is made again: {problem}", entry.file);
            }
            problem.is_none()
        });
        let kept: BTreeSet<usize> = manifest.shards.iter().map(|entry| entry.index(settings.shard_size)).collect();
        skipped.retain(|skipped| kept.contains(&((skipped.record / settings.shard_size as u64) as usize)));
        let journals = Journals::new(folder, layout, manifest.settings.digest());
        // Without a manifest nothing says what a journal is of.
        remove_journals(folder, |index| !begun || kept.contains(&index))?;
        let mut writer = Self { folder: folder.to_owned(), manifest, skipped, journals, _lock: lock };
        if !begun || writer.manifest.shards.len() != listed {
            writer.manifest.summary = None;
            writer.write_manifest()?;
        }
        Ok(writer)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the folder holds so far.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Records skipped in finished shards, in order.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The unfinished shards' journals.
    pub fn journals(&self) -> Journals {
        self.journals.clone()
    }

    /// The shards still to be made, in order.
    pub fn missing(&self) -> Vec<ShardPlan> {
        let settings = &self.manifest.settings;
        let there: BTreeSet<usize> =
            self.manifest.shards.iter().map(|entry| entry.index(settings.shard_size)).collect();
        let plan = |index| {
            let (first, covered) = settings.shard_range(index);
            ShardPlan { index, first, covered }
        };
        (0..settings.shard_count()).filter(|index| !there.contains(index)).map(plan).collect()
    }

    /// Puts a whole shard into the folder, then into the manifest.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Tensors`], for example on a full disk: the folder is then as it was.
    pub fn commit(&mut self, shard: ShardBuffer) -> Result<(), Error> {
        let index = shard.index();
        let (entry, skipped) = shard.write(&self.folder)?;
        if !skipped.is_empty() {
            self.skipped.extend(skipped);
            self.skipped.sort_by_key(|skipped| skipped.record);
            self.write_skipped(&[])?;
        }
        let place = self.manifest.shards.partition_point(|other| other.first_record < entry.first_record);
        self.manifest.shards.insert(place, entry);
        self.write_manifest()?;
        journal::remove(&self.folder, index)
    }

    /// Lists, beside the records skipped in finished shards, those of the unfinished one: for the user of a run that ends
    /// because of them. The next run makes that shard's list again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_skipped(&self, unfinished: &[Skipped]) -> Result<(), Error> {
        let text = self.skipped_text(unfinished).map_err(failed("write", &self.folder))?;
        Ok(write_atomically(&self.folder.join(SKIPPED), &text)?)
    }

    /// Completes the manifest, once no shard is missing.
    ///
    /// # Errors
    /// [`Error::Unfinished`]; [`Error::Io`] or [`Error::Damaged`] where the shards can no longer be read.
    pub fn finish(mut self) -> Result<Manifest, Error> {
        let total = self.manifest.settings.shard_count();
        if self.manifest.shards.len() != total {
            let done = self.manifest.shards.len();
            return Err(Error::Unfinished { path: self.folder, done, total });
        }
        let summary = self.summarise()?;
        if self.manifest.summary.as_ref() != Some(&summary) {
            self.write_skipped(&[])?;
            self.manifest.summary = Some(summary);
            self.write_manifest()?;
        }
        Ok(self.manifest)
    }

    fn summarise(&self) -> Result<Summary, Error> {
        let io = |source| Error::Io { action: "write", path: self.folder.join(SKIPPED), source };
        let damaged = |problem| Error::Damaged { path: self.folder.clone(), problems: vec![problem] };
        let layout = self.journals.layout();
        let mut class_counts = vec![0; self.manifest.class_names.len()];
        let (mut sums, mut squares) = (vec![0.0; layout.channels()], vec![0.0; layout.channels()]);
        for entry in &self.manifest.shards {
            let file = open_shard(&self.folder, entry, &layout)
                .map_err(|problem| damaged(format!("{}: {problem}", entry.file)))?;
            for label in labels(&file)? {
                let count = usize::try_from(label).ok().and_then(|label| class_counts.get_mut(label));
                *count.ok_or_else(|| damaged(format!("{}: label {label} has no class", entry.file)))? += 1;
            }
            let add = |total: &mut [f64], part: &[f64]| total.iter_mut().zip(part).for_each(|(a, b)| *a += b);
            add(&mut sums, &entry.sums);
            add(&mut squares, &entry.squares);
        }
        let count = |of: fn(&ShardEntry) -> u64| self.manifest.shards.iter().map(of).sum::<u64>();
        let records = count(|entry| entry.records);
        let values = records as f64 * (layout.record_len() / (2 * layout.channels())) as f64;
        let (mean, std) = statistics::mean_and_std(&sums, &squares, values);
        let skipped_sha256 = verify::sha256_of_bytes(&self.skipped_text(&[]).map_err(io)?);
        Ok(Summary { records, skipped: count(|entry| entry.skipped), skipped_sha256, class_counts, mean, std })
    }

    fn skipped_text(&self, unfinished: &[Skipped]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        for skipped in self.skipped.iter().chain(unfinished) {
            serde_json::to_writer(&mut text, skipped)?;
            text.push(b'\n');
        }
        Ok(text)
    }

    fn write_manifest(&self) -> Result<(), Error> {
        let text = self.manifest.to_json().map_err(failed("write", &self.folder))?;
        Ok(write_atomically(&self.folder.join(MANIFEST), &text)?)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// The names of the files in `folder`.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether there is anything that a run interrupted at its very beginning does not leave.
fn holds_other_files(folder: &Path) -> io::Result<bool> {
    Ok(names(folder)?.iter().any(|name| name != LOCK && !is_unfinished(name) && !journal::is_journal(name)))
}

fn remove_temporaries(folder: &Path) -> io::Result<()> {
    names(folder)?.iter().filter(|name| is_unfinished(name)).try_for_each(|name| fs::remove_file(folder.join(name)))?;
    sync_folder(folder)
}

/// Removes the journals of those shards that are `done`.
fn remove_journals(folder: &Path, done: impl Fn(usize) -> bool) -> Result<(), Error> {
    for name in names(folder).map_err(failed("read", folder))? {
        if let Some(index) = journal::index_of(&name)
            && done(index)
        {
            journal::remove(folder, index)?;
        }
    }
    Ok(())
}

/// The lines of the list that are readable. A lost one shows in the shard's count.
fn read_skipped(folder: &Path) -> Vec<Skipped> {
    let Ok(file) = File::open(folder.join(SKIPPED)) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
}

/// What the folder was begun with, if it was.
///
/// # Errors
/// As [`Manifest::read`].
pub fn settings_in(folder: &Path) -> Result<Option<Settings>, Error> {
    match fs::symlink_metadata(folder.join(MANIFEST)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => Ok(Some(Manifest::read(folder)?.settings)),
    }
}
