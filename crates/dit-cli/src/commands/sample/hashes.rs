use std::sync::Arc;

use dit_sample::{HashError, Provenance, Source, SourceHashes};
use dit_weights::{Digest, Error};

use super::{beside::Beside, files::Files, request::Request};
use crate::{open::Located, recorded::name_of};

/// A checkpoint whose hash [`Hashes`] finds.
pub fn unhashed(at: &Located) -> Source {
    Source { name: name_of(&at.name), sha256: String::new() }
}

/// The hashes of the checkpoints, which are gigabytes: computed beside loading and the first steps.
#[derive(Clone)]
pub struct Hashes {
    checkpoint: Digest,
    vae: Option<Digest>,
    weaker: Option<Digest>,
    request: Arc<Request>,
}

impl Hashes {
    pub fn of(files: &Files, beside: &Beside, request: &Arc<Request>) -> Self {
        Self {
            checkpoint: files.checkpoint.digest().clone(),
            vae: files.vae.as_ref().map(|(vae, _)| vae.digest().clone()),
            weaker: beside.weaker_digest().cloned(),
            request: Arc::clone(request),
        }
    }

    /// Begins, where somebody is going to ask.
    pub fn start(&self) {
        self.all().for_each(Digest::start);
    }

    /// Whether nobody who asks has to wait.
    pub fn are_done(&self) -> bool {
        self.all().all(Digest::is_done)
    }

    /// Whether what has been loaded is what is hashed.
    pub fn unchanged(&self) -> Result<(), Error> {
        self.all().try_for_each(Digest::unchanged)
    }

    fn all(&self) -> impl Iterator<Item = &Digest> {
        [Some(&self.checkpoint), self.vae.as_ref(), self.weaker.as_ref()].into_iter().flatten()
    }
}

/// Files are named as the request's recipe names them.
impl SourceHashes for Hashes {
    fn fill(&self, provenance: &mut Provenance) -> Result<(), HashError> {
        let Provenance { checkpoint, vae, noise, weaker, classifier, init, .. } = provenance;
        let hashed = [
            Some((&mut *checkpoint, &self.checkpoint)),
            vae.as_mut().zip(self.vae.as_ref()),
            weaker.as_mut().zip(self.weaker.as_ref()),
        ];
        for (source, digest) in hashed.into_iter().flatten() {
            digest.sha256()?.clone_into(&mut source.sha256);
        }
        if let Some(repeated) = &self.request.repeated {
            let optional = [vae, noise, weaker, classifier, init].into_iter().flatten();
            for source in optional.chain([checkpoint]) {
                *source = repeated.named_as_before(source.clone());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), HashError> {
        Ok(self.all().try_for_each(Digest::check)?)
    }
}
