use dit_data::shard::{BatchOptions, FlipChoice, LatentBatches, LatentFolder, PosteriorDraw, Share};
use dit_vae::LatentScale;
use tch::Kind;

use crate::{
    Classifier, Error,
    noising::{Noised, Noising},
};

/// What a classifier gets right in a range of timesteps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The first timestep.
    pub first: usize,
    /// The last.
    pub last: usize,
    /// Share classified right, of all latents at a timestep drawn in the range.
    pub accuracy: f64,
}

/// The accuracy over all latents of `folder`, in `buckets` equal ranges of timesteps: each latent is noised once in each, always the
/// same way. Batches of `batch_size`; the last records, too few for one, are left out.
///
/// # Errors
/// [`Error::Options`] for no buckets, or more than timesteps; [`Error::Data`] where latents cannot be read.
pub fn accuracy(
    classifier: &Classifier,
    folder: LatentFolder,
    buckets: usize,
    batch_size: usize,
) -> Result<Vec<Bucket>, Error> {
    let _no_grad = tch::no_grad_guard();
    let scale = LatentScale::of(&folder.manifest().settings.vae.config);
    let noising = Noising::new(scale, u64::MAX, classifier.device())?;
    let count = noising.timesteps();
    if buckets == 0 || buckets > count {
        return Err(Error::Options(format!("{buckets} ranges of timesteps: expected 1 to {count}")));
    }
    let batch_size = batch_size.min(usize::try_from(folder.len()).unwrap_or(usize::MAX));
    let options =
        BatchOptions { batch_size, seed: 0, share: Share::ALL, flip: FlipChoice::Never, draw: PosteriorDraw::Mean };
    let mut batches = LatentBatches::new(folder, options)?;
    let number = batches.batches_per_epoch();
    let range = |bucket: usize| (bucket * count / buckets, (bucket + 1) * count / buckets - 1);
    let mut right = vec![0.0; buckets];
    for place in 0..number {
        let batch = batches.next_batch()?;
        let samples = batch.records.len();
        for (bucket, right) in right.iter_mut().enumerate() {
            let (first, last) = range(bucket);
            let timesteps: Vec<usize> = (0..samples).map(|i| first + (i * 7919) % (last + 1 - first)).collect();
            let numbers = (place * buckets as u64 + bucket as u64) * samples as u64;
            let Noised { x, t, labels } = noising.apply(&batch, &timesteps, numbers)?;
            let found = classifier.forward(&x, &t).argmax(1, false).eq_tensor(&labels);
            *right += found.to_kind(Kind::Double).sum(Kind::Double).f_double_value(&[])?;
        }
    }
    let all = (number * batch_size as u64) as f64;
    let bucket = |(bucket, right): (usize, f64)| {
        let (first, last) = range(bucket);
        Bucket { first, last, accuracy: right / all }
    };
    Ok(right.into_iter().enumerate().map(bucket).collect())
}
