//! The folder that all clones share: `$XDG_CACHE_HOME/dit-rs/libtorch`, else `~/.cache/dit-rs/libtorch`.
//!
//! One libtorch is one *slot* of it. A slot's finished folder appears by a rename, after its files are on the disk, so
//! that it is whole or not there, also after a power cut; everything unfinished has a name of its own, is used under a lock, and is cleared by the next run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dit_fetch::human_bytes;
use dit_files::{Lock, free_bytes};

use super::platform::{Platform, Variant};
use super::{ShortOfRoom, VERSION};
use crate::ui;

/// The shared folder.
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Where the environment says; nothing is made yet.
    pub fn find() -> Result<Self> {
        // The XDG rules: a relative path is to be ignored.
        let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = xdg.or_else(|| Some(std::env::home_dir().filter(|home| home.is_absolute())?.join(".cache")));
        let base = base.context("there is no home directory to keep libtorch in; set XDG_CACHE_HOME")?;
        Ok(Self { dir: base.join("dit-rs/libtorch") })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn slot(&self, variant: Variant) -> Slot {
        Slot { dir: self.dir.clone(), name: format!("{VERSION}-{}", variant.name()) }
    }

    /// The CPU build's for another platform than this.
    pub fn slot_for(&self, platform: Platform) -> Slot {
        Slot { name: format!("{VERSION}-{}-{}", Variant::Cpu.name(), platform.name()), ..self.slot(Variant::Cpu) }
    }
}

/// The place of one libtorch in the cache.
pub struct Slot {
    dir: PathBuf,
    name: String,
}

/// The lock of what is made in the cache; waits for any other process that holds it.
pub fn lock(path: &Path) -> Result<Lock> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    }
    let cannot = || format!("{} cannot be locked", path.display());
    if let Some(lock) = Lock::try_take(path).with_context(cannot)? {
        return Ok(lock);
    }
    ui::say("another `cargo xtask` is setting up the same libtorch; waiting for it");
    Lock::wait(path).with_context(cannot)
}

impl Slot {
    /// The finished folder.
    pub fn home(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// The folder with `include/` and `lib/`: wheels with CUDA keep theirs beside `nvidia/`.
    pub fn root(&self) -> PathBuf {
        root_of(self.home())
    }

    /// The same in the folder that is being made.
    pub fn partial_root(&self) -> PathBuf {
        root_of(self.partial())
    }

    /// Where the next folder is being made.
    pub fn partial(&self) -> PathBuf {
        self.beside("partial")
    }

    /// Where downloads are kept until they are unpacked.
    pub fn downloads(&self) -> PathBuf {
        self.beside("download")
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    /// Waits for any other process that makes the same slot.
    pub fn lock(&self) -> Result<Lock> {
        lock(&self.beside("lock"))
    }

    /// Clears what an interrupted run left half made, and starts anew. Whole downloads are kept.
    pub fn begin(&self, _lock: &Lock) -> Result<()> {
        for leftover in [self.partial(), self.beside("old")] {
            remove(&leftover)?;
        }
        let downloads = self.downloads();
        for folder in [&self.partial(), &downloads] {
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        for entry in fs::read_dir(&downloads).with_context(|| format!("{} cannot be read", downloads.display()))? {
            let path = entry?.path();
            // What is whole has a plain name; what was being written when its process ended, that process's id.
            if path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().contains('-')) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Puts the made folder in its place, and drops the downloads.
    pub fn commit(&self, _lock: &Lock) -> Result<()> {
        let (home, old) = (self.home(), self.beside("old"));
        // A rename may reach the disk before what is renamed.
        sync_tree(&self.partial())
            .with_context(|| format!("{} cannot be put on the disk", self.partial().display()))?;
        if home.exists() {
            fs::rename(&home, &old).with_context(|| format!("{} cannot be moved away", home.display()))?;
        }
        fs::rename(self.partial(), &home)
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .with_context(|| format!("{} cannot be put in place", home.display()))?;
        remove(&old)?;
        remove(&self.downloads())
    }

    /// Drops the downloads too, after one of them proved damaged.
    pub fn discard_downloads(&self, _lock: &Lock) -> Result<()> {
        remove(&self.downloads())
    }

    /// Bytes that lie ready in these files and folders of the downloads.
    pub fn downloaded(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| size(&self.downloads().join(name))).sum()
    }

    /// Refuses early what would not fit on the disk, or warns of it.
    pub fn require_space(&self, needed: u64, short: ShortOfRoom) -> Result<()> {
        let Some(free) = free_bytes(&self.dir).filter(|free| *free < needed) else { return Ok(()) };
        let lack = format!(
            "not enough room in {}: setting up libtorch takes up to {} for a while, and {} are free",
            self.dir.display(),
            human_bytes(needed),
            human_bytes(free)
        );
        match short {
            ShortOfRoom::Refuse => bail!(
                "{lack}; make room, set XDG_CACHE_HOME to a folder on a larger disk, or try it all the same with `cargo xtask \
                 libtorch --ignore-disk-space`"
            ),
            ShortOfRoom::Warn => {
                ui::say(format_args!("warning: {lack}"));
                Ok(())
            }
        }
    }
}

fn root_of(home: PathBuf) -> PathBuf {
    let torch = home.join("torch");
    if torch.is_dir() { torch } else { home }
}

/// Removes a folder; none is fine.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes in a file, or in the files of a folder; none if it is not there.
fn size(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |metadata| metadata.len()),
    }
}

/// Puts everything below `folder` on the disk: on Linux at once, for one call a file takes minutes on a slow disk.
fn sync_tree(folder: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if rustix::fs::syncfs(File::open(folder)?).is_ok() {
        return Ok(());
    }
    sync_each(folder)
}

fn sync_each(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            sync_each(&path)?;
        } else if kind.is_file() {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(dir: &Path) -> Slot {
        Cache { dir: dir.to_owned() }.slot(Variant::Cpu)
    }

    #[test]
    fn a_slot_appears_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let slot = slot(dir.path());
        for round in ["first", "second"] {
            let lock = slot.lock().unwrap();
            slot.begin(&lock).unwrap();
            fs::write(slot.partial().join("build-version"), round).unwrap();
            fs::write(slot.downloads().join("wheel"), "x").unwrap();
            slot.commit(&lock).unwrap();
            assert_eq!(fs::read_to_string(slot.home().join("build-version")).unwrap(), round);
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["2.11.0-cpu", "2.11.0-cpu.lock"]);
    }

    #[test]
    fn a_new_start_clears_half_made_folders_and_keeps_downloads() {
        let dir = tempfile::tempdir().unwrap();
        let slot = slot(dir.path());
        fs::create_dir_all(slot.partial().join("lib")).unwrap();
        fs::create_dir_all(slot.downloads()).unwrap();
        fs::write(slot.downloads().join("wheel"), "x").unwrap();
        fs::create_dir_all(slot.downloads().join("incoming-123")).unwrap();
        slot.begin(&slot.lock().unwrap()).unwrap();
        assert!(!slot.downloads().join("incoming-123").exists());
        assert_eq!(fs::read_dir(slot.partial()).unwrap().count(), 0);
        assert!(slot.downloads().join("wheel").is_file());
    }

    #[test]
    fn what_lies_ready_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let slot = slot(dir.path());
        assert_eq!(slot.downloaded(&["torch"]), 0);
        fs::create_dir_all(slot.downloads().join("torch")).unwrap();
        for (file, text) in [("torch/a.whl", "four"), ("torch/b.whl", "5five"), ("libtorch.zip", "x")] {
            fs::write(slot.downloads().join(file), text).unwrap();
        }
        assert_eq!(slot.downloaded(&["torch", "nvidia"]), 9);
        assert_eq!(slot.downloaded(&["libtorch.zip"]), 1);
    }

    #[test]
    fn a_tree_is_synchronised_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("a/link")).unwrap();
        for sync in [sync_tree, sync_each] {
            sync(dir.path()).unwrap();
            assert!(sync(&dir.path().join("gone")).is_err());
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let slot = slot(dir.path());
        let held = slot.lock().unwrap();
        assert!(Lock::try_take(&slot.beside("lock")).unwrap().is_none());
        drop(held);
        assert!(Lock::try_take(&slot.beside("lock")).unwrap().is_some());
    }

    #[test]
    fn what_cannot_fit_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let slot = slot(&dir.path().join("not/yet"));
        slot.require_space(1, ShortOfRoom::Refuse).unwrap();
        slot.require_space(1 << 60, ShortOfRoom::Warn).unwrap();
        let error = slot.require_space(1 << 60, ShortOfRoom::Refuse).unwrap_err().to_string();
        assert!(error.contains("XDG_CACHE_HOME") && error.contains("are free"), "{error}");
    }

    #[test]
    fn the_root_is_where_the_headers_are() {
        let dir = tempfile::tempdir().unwrap();
        let slot = slot(dir.path());
        assert_eq!(slot.root(), slot.home());
        fs::create_dir_all(slot.home().join("torch")).unwrap();
        assert_eq!(slot.root(), slot.home().join("torch"));
    }
}
