//! Statistics of pictures whose features are not kept.

use crate::{
    Error, ExtractionProgress, FeatureNetwork, FeatureSet, Features, Moments, Pictures, Statistics, Widths,
    batches::for_each_batch,
};

/// What [`statistics_of`](crate::statistics_of) gives of the pictures' features, to the bit, without keeping those: for more
/// pictures than a disk has room for. Memory does not grow with their number; a run that is interrupted begins anew.
///
/// # Errors
/// [`Error::TooFew`], [`Error::NonFinite`]; whatever reading and computing meet.
pub fn statistics_of_pictures(
    pictures: &Pictures,
    network: &dyn FeatureNetwork,
    batch_size: usize,
    progress: &mut dyn FnMut(ExtractionProgress),
) -> Result<Statistics, Error> {
    network.check_size(pictures.height(), pictures.width())?;
    let total = pictures.len();
    let starts = (0..total).step_by(FeatureSet::CHUNK);
    let chunks: Vec<_> = starts.map(|start| start..total.min(start + FeatureSet::CHUNK)).collect();
    let mut sums = Sums::new(network.widths())?;
    let mut parts = Vec::new();
    progress(ExtractionProgress { done: 0, resumed: 0, total });
    for_each_batch(pictures, &chunks, batch_size.clamp(1, FeatureSet::CHUNK), &mut |batch, pictures| {
        parts.push(network.extract(pictures)?);
        progress(ExtractionProgress { done: batch.end, resumed: 0, total });
        // A chunk at a time, as they are read from a cache: sums depend on it in their last bits.
        if batch.end == total || batch.end % FeatureSet::CHUNK == 0 {
            sums.push(&Features::joined(&std::mem::take(&mut parts))?)?;
        }
        Ok(())
    })?;
    sums.statistics()
}

/// The sums of each layer's features.
struct Sums {
    pooled: Moments,
    spatial: Option<Moments>,
}

impl Sums {
    fn new(widths: Widths) -> Result<Self, Error> {
        Ok(Self { pooled: Moments::new(widths.pooled)?, spatial: widths.spatial.map(Moments::new).transpose()? })
    }

    fn push(&mut self, features: &Features) -> Result<(), Error> {
        self.pooled.push(&features.pooled)?;
        match (&mut self.spatial, &features.spatial) {
            (Some(sums), Some(features)) => sums.push(features),
            (None, _) => Ok(()),
            (Some(_), None) => Err(Error::NeedsFeatures { metric: "sFID", what: "spatial features" }),
        }
    }

    fn statistics(&self) -> Result<Statistics, Error> {
        let spatial = self.spatial.as_ref().map(Moments::gaussian).transpose()?;
        Ok(Statistics { pooled: self.pooled.gaussian()?, spatial, notes: None })
    }
}
