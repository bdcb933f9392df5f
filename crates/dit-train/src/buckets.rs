use std::ops::Range;

use crate::Losses;

/// Ranges into which the timesteps are divided.
pub const BUCKETS: usize = 10;

/// The loss at one timestep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleLoss {
    /// Of the training schedule.
    pub timestep: u32,
    /// What it counts for in a mean: 1, or what makes up for a timestep that is drawn more often than others.
    pub weight: f64,
    /// As minimised, without that weight.
    pub total: f64,
    /// See [`Losses::mse`].
    pub mse: Option<f64>,
    /// See [`Losses::vb`].
    pub vb: Option<f64>,
}

/// Means of the loss over ten equal ranges of timesteps: the first is almost clean, the last almost noise.
///
/// Sums are kept in f64 and in the order in which samples came, so equal runs give equal means to the last bit.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketLosses {
    timesteps: u32,
    buckets: [Sums; BUCKETS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    samples: u64,
    weight: f64,
    total: f64,
    mse: Option<f64>,
    vb: Option<f64>,
}

impl Sums {
    fn add(&mut self, sample: &SampleLoss) {
        self.samples += 1;
        self.weight += sample.weight;
        self.total += sample.weight * sample.total;
        add_term(&mut self.mse, sample.mse.map(|mse| sample.weight * mse));
        add_term(&mut self.vb, sample.vb.map(|vb| sample.weight * vb));
    }

    fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.weight += other.weight;
        self.total += other.total;
        add_term(&mut self.mse, other.mse);
        add_term(&mut self.vb, other.vb);
    }

    fn means(&self) -> Option<Losses> {
        let over = |sum: f64| sum / self.weight;
        (self.samples > 0).then(|| Losses { total: over(self.total), mse: self.mse.map(over), vb: self.vb.map(over) })
    }
}

fn add_term(sum: &mut Option<f64>, term: Option<f64>) {
    if let Some(term) = term {
        *sum = Some(sum.unwrap_or(0.0) + term);
    }
}

impl BucketLosses {
    /// No sample yet, of a schedule of `timesteps` steps.
    pub fn new(timesteps: usize) -> Self {
        Self { timesteps: u32::try_from(timesteps).unwrap_or(u32::MAX).max(1), buckets: Default::default() }
    }

    /// Counts a sample.
    pub fn add(&mut self, sample: &SampleLoss) {
        let index = u64::from(sample.timestep) * BUCKETS as u64 / u64::from(self.timesteps);
        let last = BUCKETS - 1;
        self.buckets[usize::try_from(index).unwrap_or(last).min(last)].add(sample);
    }

    /// Samples counted.
    pub fn samples(&self) -> u64 {
        self.buckets.iter().map(|sums| sums.samples).sum()
    }

    /// Means over all samples; `None` where there is none.
    pub fn mean(&self) -> Option<Losses> {
        let mut all = Sums::default();
        self.buckets.iter().for_each(|sums| all.merge(sums));
        all.means()
    }

    /// The timesteps of each range and the means over its samples; `None` where there is none.
    pub fn buckets(&self) -> impl Iterator<Item = (Range<u32>, Option<Losses>)> {
        let edge = |index: usize| (index as u64 * u64::from(self.timesteps)).div_ceil(BUCKETS as u64) as u32;
        self.buckets.iter().enumerate().map(move |(index, sums)| (edge(index)..edge(index + 1), sums.means()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(timestep: u32, weight: f64, mse: f64) -> SampleLoss {
        SampleLoss { timestep, weight, total: mse + 1.0, mse: Some(mse), vb: Some(1.0) }
    }

    #[test]
    fn ranges_cover_every_timestep_once() {
        for timesteps in [1, 7, 10, 999, 1000, 1001] {
            let empty = BucketLosses::new(timesteps);
            for t in 0..timesteps as u32 {
                let mut losses = empty.clone();
                losses.add(&sample(t, 1.0, 0.5));
                let holding: Vec<_> = losses.buckets().filter(|(_, means)| means.is_some()).collect();
                assert_eq!(holding.len(), 1);
                assert!(holding[0].0.contains(&t), "{t} of {timesteps} in {:?}", holding[0].0);
            }
            let covered: u32 = empty.buckets().map(|(range, _)| range.end - range.start).sum();
            assert_eq!(covered as usize, timesteps);
        }
    }

    #[test]
    fn means_are_weighted() {
        let mut losses = BucketLosses::new(1000);
        assert_eq!(losses.mean(), None);
        [sample(5, 3.0, 1.0), sample(6, 1.0, 5.0), sample(999, 4.0, 0.0)].iter().for_each(|s| losses.add(s));
        assert_eq!(losses.samples(), 3);
        assert_eq!(losses.mean(), Some(Losses { total: 2.0, mse: Some(1.0), vb: Some(1.0) }));
        let first = losses.buckets().next().and_then(|(_, means)| means);
        assert_eq!(first, Some(Losses { total: 3.0, mse: Some(2.0), vb: Some(1.0) }));
    }
}
