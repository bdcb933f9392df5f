use std::sync::Arc;

use dit_sample::{LateProvenance, Provenance, Source};
use dit_weights::{Digest, Error};

use super::{Files, beside::Beside, request::Request};
use crate::open::Located;

/// A checkpoint whose hash [`Hashes`] finds.
pub fn unhashed(at: &Located) -> Source {
    Source { name: at.name.clone(), sha256: String::new() }
}

/// The hashes of the checkpoints, which are gigabytes: computed beside loading and the first steps.
pub struct Hashes {
    checkpoint: Digest,
    vae: Option<Digest>,
    weaker: Option<Digest>,
}

impl Hashes {
    pub fn of(files: &Files, beside: &Beside) -> Self {
        Self {
            checkpoint: files.checkpoint.digest().clone(),
            vae: files.vae.as_ref().map(|(vae, _)| vae.digest().clone()),
            weaker: beside.weaker_digest().cloned(),
        }
    }

    /// Begins, where somebody is going to ask.
    pub fn start(&self) {
        [Some(&self.checkpoint), self.vae.as_ref(), self.weaker.as_ref()].into_iter().flatten().for_each(Digest::start);
    }

    /// `unhashed` with these, its files named as the request's recipe names them.
    pub fn complete(self, unhashed: Provenance, request: Arc<Request>) -> LateProvenance {
        LateProvenance::new(unhashed, move |provenance| {
            self.fill(provenance)?;
            let Provenance { checkpoint, vae, noise, weaker, classifier, init, .. } = provenance;
            let optional = [vae, noise, weaker, classifier, init].into_iter().flatten();
            for source in optional.chain([checkpoint]) {
                *source = request.named_as_before(source.clone());
            }
            Ok(())
        })
    }

    fn fill(&self, provenance: &mut Provenance) -> Result<(), Error> {
        let Provenance { checkpoint, vae, weaker, .. } = provenance;
        let checkpoint = Some((checkpoint, &self.checkpoint));
        let (vae, weaker) = (vae.as_mut().zip(self.vae.as_ref()), weaker.as_mut().zip(self.weaker.as_ref()));
        for (source, digest) in [checkpoint, vae, weaker].into_iter().flatten() {
            digest.sha256()?.clone_into(&mut source.sha256);
        }
        Ok(())
    }
}
