use std::sync::{Arc, OnceLock};

use crate::{Error, Provenance};

/// What finds the hashes of a provenance's files.
type Hash = Box<dyn Fn(&mut Provenance) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// A run's [`Provenance`], whose hashes are waited for when a file is first written: until then they can be computed beside the
/// steps. Copies share it.
#[derive(Clone)]
pub struct LateProvenance(Arc<Shared>);

struct Shared {
    unhashed: Provenance,
    hash: Hash,
    hashed: OnceLock<Provenance>,
}

impl LateProvenance {
    /// `unhashed` lacks hashes, which `hash` fills in.
    pub fn new(
        unhashed: Provenance,
        hash: impl Fn(&mut Provenance) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared { unhashed, hash: Box::new(hash), hashed: OnceLock::new() }))
    }

    /// All of it. Waits for the hashes.
    ///
    /// # Errors
    /// [`Error::Provenance`] where a file cannot be hashed; asked again, it tries again.
    pub fn get(&self) -> Result<&Provenance, Error> {
        if let Some(hashed) = self.0.hashed.get() {
            return Ok(hashed);
        }
        let mut provenance = self.0.unhashed.clone();
        (self.0.hash)(&mut provenance).map_err(Error::Provenance)?;
        Ok(self.0.hashed.get_or_init(|| provenance))
    }

    /// What does not depend on hashes.
    pub(crate) fn unhashed(&self) -> &Provenance {
        &self.0.unhashed
    }
}

/// One that is known.
impl From<Provenance> for LateProvenance {
    fn from(provenance: Provenance) -> Self {
        Self::new(provenance, |_| Ok(()))
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

    #[test]
    fn hashes_are_asked_for_when_they_are_needed_and_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let late = LateProvenance::new(unhashed(), move |provenance| {
            // The file cannot be read the first time.
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err("the disk is gone".into());
            }
            provenance.checkpoint.sha256 = "ab".repeat(32);
            Ok(())
        });
        let copy = late.clone();
        assert_eq!(late.unhashed().software, "dit-rs 0");
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let error = late.get().unwrap_err();
        assert!(matches!(error, Error::Provenance(_)) && error.to_string().contains("the disk is gone"), "{error}");
        for late in [&late, &copy, &late] {
            assert_eq!(late.get().unwrap().checkpoint.sha256, "ab".repeat(32));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
