//! A fetch from names to checkpoints that are ready.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dit_catalog::{Catalog, Entry};

use crate::busy::Busy;
use crate::cancel::Cancel;
use crate::download::Expected;
use crate::error::FetchError;
use crate::http::Client;
use crate::install::Input;
use crate::layout::staged;
use crate::licence;
use crate::observe::{Event, Observer};
use crate::part::with_suffix;
use crate::settings::{Originals, Settings};
use crate::standing::Standing;
use crate::trust::Trust;

/// Brings checkpoints of one catalogue into one folder.
pub struct Fetcher<'a> {
    pub(crate) catalog: &'a Catalog,
    /// Where the catalogue was read from; the record of first fetches lies beside it.
    pub(crate) manifest: PathBuf,
    pub(crate) settings: &'a Settings,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) cancel: Cancel,
}

/// What a fetch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Checkpoints that were ready before.
    pub ready: Vec<String>,
    /// Checkpoints that this fetch made ready.
    pub installed: Vec<String>,
}

/// A checkpoint at work: its files arrive one by one, in whatever order.
struct Order<'a> {
    entry: &'a Entry,
    /// The hash that each file must have, where anybody knows.
    expected: Vec<Option<Expected>>,
    inputs: Mutex<Vec<Option<Input>>>,
    missing: AtomicUsize,
}

/// What all threads of a fetch share.
struct Work<'a> {
    orders: Vec<Order<'a>>,
    client: Client<'a>,
    /// (order, file), the next to be taken.
    queue: Mutex<std::vec::IntoIter<(usize, usize)>>,
    /// (order, file, what happened).
    failures: Mutex<Vec<(usize, usize, FetchError)>>,
    installed: Mutex<Vec<usize>>,
    /// One installation at a time, so that memory stays bounded.
    trust: Mutex<Trust>,
}

impl<'a> Fetcher<'a> {
    /// `manifest` is the file that `catalog` was read from.
    pub fn new(
        catalog: &'a Catalog,
        manifest: &Path,
        settings: &'a Settings,
        observer: &'a dyn Observer,
        cancel: &Cancel,
    ) -> Self {
        Fetcher { catalog, manifest: manifest.to_owned(), settings, observer, cancel: cancel.clone() }
    }

    /// Makes the named checkpoints ready: what is missing is taken from the hub's cache or downloaded, verified,
    /// converted. Every checkpoint that can be brought is brought, even if another fails.
    ///
    /// # Errors
    /// The only failure, or [`FetchError::Several`]. What has arrived stays for the next run.
    pub fn fetch(&self, names: &[String]) -> Result<Fetched, FetchError> {
        let entries = self.entries(names)?;
        let _busy = Busy::take(&self.settings.dir)?;
        self.clear_work()?;
        let trust = Trust::open(&self.manifest, &self.settings.dir)?;
        let mut fetched = Fetched::default();
        let mut wanted = Vec::new();
        for entry in entries {
            match self.standing(entry, &trust)? {
                Standing::Ready => fetched.ready.push(entry.name().to_owned()),
                Standing::Wanted => wanted.push(entry),
            }
        }
        if wanted.is_empty() {
            return Ok(fetched);
        }
        self.announce_licences(&wanted);
        crate::disk::require(&self.settings.dir, self.room_needed(&wanted))?;
        let work = self.work(wanted, trust)?;
        std::thread::scope(|scope| {
            for _ in 0..self.settings.jobs.get() {
                scope.spawn(|| self.run(&work));
            }
        });
        let mut installed = into_inner(work.installed);
        installed.sort_unstable();
        fetched.installed = installed.iter().map(|&i| work.orders[i].entry.name().to_owned()).collect();
        finish(into_inner(work.failures))?;
        Ok(fetched)
    }

    /// The entries of these names, each once, with everything wrong about the names in one error.
    pub(crate) fn entries(&self, names: &[String]) -> Result<Vec<&'a Entry>, FetchError> {
        let mut entries: Vec<&Entry> = Vec::new();
        let mut unknown = Vec::new();
        for name in names {
            match self.catalog.get(name) {
                Ok(entry) if entries.iter().any(|e| e.name() == entry.name()) => {}
                Ok(entry) => entries.push(entry),
                Err(error) => unknown.push(FetchError::Catalog(error)),
            }
        }
        match unknown.len() {
            0 => Ok(entries),
            1 => Err(unknown.remove(0)),
            _ => Err(FetchError::Several { failures: unknown }),
        }
    }

    fn announce_licences(&self, wanted: &[&Entry]) {
        let mut licences: Vec<(&str, Vec<String>)> = Vec::new();
        for entry in wanted {
            match licences.iter_mut().find(|(licence, _)| *licence == entry.license()) {
                Some((_, names)) => names.push(entry.name().to_owned()),
                None => licences.push((entry.license(), vec![entry.name().to_owned()])),
            }
        }
        for (licence, names) in licences {
            self.observer.observe(&Event::Licence { names: &names, licence, notice: &licence::notice(licence) });
        }
    }

    /// Bytes that will be written before anything is deleted, as far as they are known.
    fn room_needed(&self, wanted: &[&Entry]) -> u64 {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        let mut needed = 0u64;
        for entry in wanted {
            for file in entry.files() {
                let path = staged(self.catalog, entry, file, &self.settings.dir);
                let bytes = file.bytes().unwrap_or(0);
                let in_place = self.cached(file).is_some() && self.may_stay_in_cache(entry);
                if !in_place && !path.exists() {
                    needed = needed.saturating_add(bytes.saturating_sub(length(&with_suffix(&path, ".part"))));
                }
                if self.is_converted(entry, file) {
                    needed = needed.saturating_add(bytes.max(length(&path)));
                }
            }
        }
        needed
    }

    /// Whether a file of the hub's cache may be read where it is: the only file of a DiT, which is not kept anyway.
    pub(crate) fn may_stay_in_cache(&self, entry: &Entry) -> bool {
        entry.kind() == dit_catalog::Kind::Dit
            && entry.files().len() == 1
            && self.settings.originals == Originals::Delete
    }

    fn work(&self, wanted: Vec<&'a Entry>, trust: Trust) -> Result<Work<'a>, FetchError> {
        let order = |entry: &'a Entry| Order {
            entry,
            expected: (0..entry.files().len()).map(|i| self.expected(entry, i, &trust)).collect(),
            inputs: Mutex::new(vec![None; entry.files().len()]),
            missing: AtomicUsize::new(entry.files().len()),
        };
        let orders: Vec<_> = wanted.into_iter().map(order).collect();
        let files = |(i, order): (usize, &Order)| (0..order.entry.files().len()).map(move |j| (i, j));
        let queue: Vec<_> = orders.iter().enumerate().flat_map(files).collect();
        Ok(Work {
            queue: Mutex::new(queue.into_iter()),
            orders,
            client: Client::new(self.settings, &self.cancel)?,
            failures: Mutex::default(),
            installed: Mutex::default(),
            trust: Mutex::new(trust),
        })
    }

    /// One of the threads: takes files until none is left or there is no point in going on.
    fn run(&self, work: &Work<'_>) {
        loop {
            let stop = lock(&work.failures).iter().any(|(_, _, error)| error.is_final());
            let Some((i, j)) = lock(&work.queue).next().filter(|_| !stop) else { return };
            let order = &work.orders[i];
            if let Err(error) = self.one(work, i, j) {
                self.observer.observe(&Event::Failed { file: &self.label(order.entry, j) });
                lock(&work.failures).push((i, j, error));
            }
        }
    }

    fn one(&self, work: &Work<'_>, i: usize, j: usize) -> Result<(), FetchError> {
        let order = &work.orders[i];
        let input = self.obtain(&work.client, order.entry, j, order.expected[j].clone())?;
        lock(&order.inputs)[j] = Some(input);
        if order.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            let inputs: Vec<Input> = lock(&order.inputs).drain(..).flatten().collect();
            self.install(order.entry, &inputs, &mut lock(&work.trust))?;
            lock(&work.installed).push(i);
        }
        Ok(())
    }

    pub(crate) fn label(&self, entry: &Entry, file: usize) -> String {
        let path = entry.files().get(file).map_or("", |f| f.path());
        format!("{}/{path}", entry.name())
    }
}

/// The failures as one error, in the manifest's order.
fn finish(mut failures: Vec<(usize, usize, FetchError)>) -> Result<(), FetchError> {
    failures.sort_by_key(|(i, j, _)| (*i, *j));
    let mut failures: Vec<_> = failures.into_iter().map(|(_, _, error)| error).collect();
    if let Some(at) = failures.iter().position(|e| matches!(e, FetchError::Interrupted)) {
        return Err(failures.swap_remove(at));
    }
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(FetchError::Several { failures }),
    }
}

/// A thread that panicked while it held the lock left nothing half done that others rely on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
