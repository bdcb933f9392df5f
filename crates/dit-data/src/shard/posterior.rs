//! Draws from stored posteriors.

use dit_random::normal_pair;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use super::{MomentsView, permutation::keyed};

/// The random numbers of one record in one epoch, whatever its batch, rank or run: a ChaCha8 generator keyed by (seed, epoch)
/// whose stream is the record. Its first word decides the flip, the rest is noise.
#[derive(Debug)]
pub(crate) struct RecordNoise(ChaCha8Rng);

impl RecordNoise {
    pub(crate) fn new(seed: u64, epoch: u64, record: u64) -> Self {
        let mut generator = keyed(seed, epoch, b"dit-data noise 1");
        generator.set_stream(record);
        Self(generator)
    }

    /// Heads or tails. To be called first, and always, so that the noise is the same with and without flips.
    pub(crate) fn flip(&mut self) -> bool {
        self.0.next_u64() >> 63 == 1
    }

    /// mean + exp(logvar / 2) · noise for each value.
    pub(crate) fn draw(&mut self, moments: &MomentsView, out: &mut [f32]) {
        let mut spare = None;
        for (slot, (mean, logvar)) in out.iter_mut().zip(moments.mean().zip(moments.logvar())) {
            let noise = match spare.take() {
                Some(noise) => noise,
                None => {
                    let [first, second] = normal_pair(&mut self.0).map(|noise| noise as f32);
                    spare = Some(second);
                    first
                }
            };
            *slot = mean + libm::expf(0.5 * logvar) * noise;
        }
    }
}
