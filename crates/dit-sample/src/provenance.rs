use std::sync::{Arc, OnceLock};

use crate::{Error, Provenance};

/// Why hashes are not known, as their source says it.
pub type HashError = Box<dyn std::error::Error + Send + Sync>;

/// What finds the hashes of a provenance's files.
pub trait SourceHashes: Send + Sync {
    /// Fills them in. Waits for those that are not known yet.
    ///
    /// # Errors
    /// Where a file cannot be hashed.
    fn fill(&self, provenance: &mut Provenance) -> Result<(), HashError>;

    /// Whether something has gone wrong with what is being hashed beside other work. Waits for nothing.
    ///
    /// # Errors
    /// What has.
    fn check(&self) -> Result<(), HashError> {
        Ok(())
    }
}

/// A run's [`Provenance`], whose hashes are waited for when a file is first written: until then they can be computed beside the
/// steps. Copies share it.
#[derive(Clone)]
pub struct LateProvenance(Arc<Shared>);

struct Shared {
    unhashed: Provenance,
    hashes: Box<dyn SourceHashes>,
    hashed: OnceLock<Result<Provenance, Arc<dyn std::error::Error + Send + Sync>>>,
}

impl LateProvenance {
    /// `unhashed` lacks hashes, which `hashes` fills in.
    pub fn new(unhashed: Provenance, hashes: impl SourceHashes + 'static) -> Self {
        Self(Arc::new(Shared { unhashed, hashes: Box::new(hashes), hashed: OnceLock::new() }))
    }

    /// All of it. Waits for the hashes.
    ///
    /// # Errors
    /// [`Error::Provenance`] where a file cannot be hashed; it is not tried again.
    pub fn get(&self) -> Result<&Provenance, Error> {
        let find = || {
            let mut provenance = self.0.unhashed.clone();
            self.0.hashes.fill(&mut provenance).map_err(Arc::from)?;
            Ok(provenance)
        };
        self.0.hashed.get_or_init(find).as_ref().map_err(|error| Error::Provenance(Arc::clone(error)))
    }

    /// Whether [`get`](Self::get) is going to fail, as far as that is known. Waits for nothing.
    ///
    /// # Errors
    /// [`Error::Provenance`].
    pub fn check(&self) -> Result<(), Error> {
        if self.0.hashed.get().is_some() {
            return self.get().map(drop);
        }
        match self.0.hashes.check() {
            Ok(()) => Ok(()),
            Err(error) => match self.0.hashed.get_or_init(|| Err(Arc::from(error))) {
                Ok(_) => Ok(()),
                Err(error) => Err(Error::Provenance(Arc::clone(error))),
            },
        }
    }

    /// What does not depend on hashes.
    pub(crate) fn unhashed(&self) -> &Provenance {
        &self.0.unhashed
    }
}

/// One that is known.
impl From<Provenance> for LateProvenance {
    fn from(provenance: Provenance) -> Self {
        Self::new(provenance, Known)
    }
}

/// Hashes that are there already.
struct Known;

impl SourceHashes for Known {
    fn fill(&self, _: &mut Provenance) -> Result<(), HashError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{LabelPolicy, OpenedAs, Settings, Source};

    fn unhashed() -> Provenance {
        Provenance {
            software: "dit-rs 0".to_owned(),
            checkpoint: Source { name: "dit".to_owned(), sha256: String::new() },
            opened_as: OpenedAs::default(),
            vae: None,
            settings: Settings::default(),
            noise: None,
            weaker: None,
            classifier: None,
            init: None,
            labels: LabelPolicy::Balanced,
            device: "cpu".to_owned(),
            threads: 1,
            batch_size: 1,
        }
    }

    #[derive(Default)]
    struct Counted {
        asked: Arc<AtomicUsize>,
        cannot_read: bool,
        stopped: bool,
    }

    impl SourceHashes for Counted {
        fn fill(&self, provenance: &mut Provenance) -> Result<(), HashError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.cannot_read {
                return Err("the disk is gone".into());
            }
            provenance.checkpoint.sha256 = "ab".repeat(32);
            Ok(())
        }

        fn check(&self) -> Result<(), HashError> {
            if self.stopped { Err("the file was written to".into()) } else { Ok(()) }
        }
    }

    #[track_caller]
    fn check(hashes: Counted, times: usize, expected: Result<(), &str>) {
        let asked = Arc::clone(&hashes.asked);
        let late = LateProvenance::new(unhashed(), hashes);
        let copy = late.clone();
        assert_eq!(late.unhashed().software, "dit-rs 0");
        let beside = late.check();
        assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing is waited for");
        for late in [&late, &copy, &late] {
            match (late.get(), expected) {
                (Ok(provenance), Ok(())) => assert_eq!(provenance.checkpoint.sha256, "ab".repeat(32)),
                (Err(error), Err(expected)) => {
                    assert!(matches!(error, Error::Provenance(_)) && error.to_string().contains(expected), "{error}");
                }
                (found, _) => panic!("{:?}", found.map(drop)),
            }
            assert_eq!(late.check().is_ok(), expected.is_ok());
        }
        assert_eq!(asked.load(Ordering::Relaxed), times);
        assert_eq!(beside.is_err(), times == 0);
    }

    #[test]
    fn hashes_are_asked_for_when_they_are_needed_and_once() {
        check(Counted::default(), 1, Ok(()));
        check(Counted { cannot_read: true, ..Counted::default() }, 1, Err("the disk is gone"));
        check(Counted { stopped: true, ..Counted::default() }, 0, Err("the file was written to"));
    }
}
