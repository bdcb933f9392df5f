//! What can be measured of two sides, told before any feature is computed.

use std::collections::BTreeSet;

use crate::numbers::enough;
use crate::{
    Error, Gaussian, InceptionScore, KidOptions, LeftOut, Metric, Pictures, PrecisionRecall, Statistics, Widths,
};

/// Fewer samples and the interval of a Fréchet distance is of one sample's covariance.
const LEAST_SAMPLES: usize = 3;
/// Fewer pictures have no covariance.
const LEAST_REFERENCE: usize = 2;

/// What both sides of a comparison have.
#[derive(Debug, Clone, Copy)]
pub struct Sides {
    widths: Widths,
    samples: usize,
    reference: Option<usize>,
    /// Widths of the statistics' layers.
    statistics: Option<(usize, Option<usize>)>,
}

impl Sides {
    /// `samples` against a reference's pictures and statistics, whichever there are, through a network of `widths`.
    pub fn new(
        widths: Widths,
        samples: &Pictures,
        reference: Option<&Pictures>,
        statistics: Option<&Statistics>,
    ) -> Self {
        let widths_of = |found: &Statistics| (found.pooled.width(), found.spatial.as_ref().map(Gaussian::width));
        let (samples, reference) = (samples.len(), reference.map(Pictures::len));
        Self { widths, samples, reference, statistics: statistics.map(widths_of) }
    }

    /// Whether `metric` can be had of them, as far as counts and widths tell: [`evaluate()`](crate::evaluate()) would fail with the
    /// same error, after hours perhaps.
    ///
    /// # Errors
    /// [`Error::TooFewFor`], [`Error::NeedsPictures`], [`Error::NeedsFeatures`], [`Error::Width`].
    pub fn check(&self, metric: Metric) -> Result<(), Error> {
        self.look_at(metric).map_err(|error| error.of_metric(metric))
    }

    /// Those of `metrics` that can be had of them, and why the others cannot.
    ///
    /// # Errors
    /// As [`check`](Self::check) of the first, where none can be had.
    pub fn possible(&self, metrics: &BTreeSet<Metric>) -> Result<(BTreeSet<Metric>, Vec<LeftOut>), Error> {
        let (mut possible, mut left_out, mut first) = (BTreeSet::new(), Vec::new(), None);
        for &metric in metrics {
            match self.look_at(metric) {
                Ok(()) => {
                    possible.insert(metric);
                }
                Err(error) => {
                    // What to do about it is for whoever asked for this metric.
                    let why = match error {
                        Error::NeedsPictures { .. } => "the reference has statistics, but no pictures".to_owned(),
                        _ => error.to_string().lines().next().unwrap_or_default().to_owned(),
                    };
                    left_out.push(LeftOut { metric: metric.name(), why });
                    first.get_or_insert(error.of_metric(metric));
                }
            }
        }
        match first {
            Some(error) if possible.is_empty() => Err(error),
            _ => Ok((possible, left_out)),
        }
    }

    fn look_at(&self, metric: Metric) -> Result<(), Error> {
        let pictures = || self.reference.ok_or(Error::NeedsPictures { metric: metric.name() });
        match metric {
            Metric::Fid => self.check_frechet(self.widths.pooled, self.statistics.map(|(pooled, _)| pooled)),
            Metric::Sfid => {
                let needs = |what| Error::NeedsFeatures { metric: metric.name(), what };
                let width = self.widths.spatial.ok_or(needs("spatial features, which only Inception has"))?;
                let statistics = match self.statistics {
                    Some((_, spatial)) => Some(spatial.ok_or(needs("mu_s and sigma_s"))?),
                    None => None,
                };
                self.check_frechet(width, statistics)
            }
            Metric::InceptionScore if self.widths.logits.is_none() => {
                Err(Error::NeedsFeatures { metric: metric.name(), what: "logits" })
            }
            Metric::InceptionScore => InceptionScore::check_count(self.samples),
            Metric::PrecisionRecall => PrecisionRecall::check_counts(self.samples, pictures()?),
            Metric::Kid => KidOptions::check_counts(self.samples, pictures()?),
        }
    }

    fn check_frechet(&self, width: usize, statistics: Option<usize>) -> Result<(), Error> {
        enough("samples", self.samples, LEAST_SAMPLES)?;
        match (statistics, self.reference) {
            (Some(found), _) if found != width => Err(Error::Width { samples: width, reference: found }),
            (Some(_), _) => Ok(()),
            (None, found) => enough("pictures of the reference", found.unwrap_or(0), LEAST_REFERENCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: Widths = Widths { pooled: 128, spatial: None, logits: Some(10) };
    const INCEPTION: Widths = Widths { pooled: 2048, spatial: Some(2023), logits: Some(1008) };

    #[track_caller]
    fn check(sides: Sides, metric: Metric, expected: Option<&str>) {
        let found = sides.check(metric).err().map(|error| error.to_string());
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) if found.contains(expected) => {}
            _ => panic!("{sides:?}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn what_cannot_be_had_is_told_by_counts_and_widths() {
        use Metric::{Fid, InceptionScore, Kid, PrecisionRecall, Sfid};
        let of = |widths, samples, reference, statistics| Sides { widths, samples, reference, statistics };
        check(of(DEMO, 3, Some(2), None), Fid, None);
        check(of(DEMO, 2, Some(2), None), Fid, Some("FID: 2 samples are too few; at least 3"));
        check(of(DEMO, 3, Some(1), None), Fid, Some("FID: 1 pictures of the reference are too few; at least 2"));
        check(of(DEMO, 3, None, Some((128, None))), Fid, None);
        check(of(DEMO, 3, None, Some((2048, None))), Fid, Some("128 features, the reference 2048"));
        check(of(DEMO, 3, Some(3), None), Sfid, Some("sFID needs spatial features"));
        check(of(INCEPTION, 3, Some(3), None), Sfid, None);
        check(of(INCEPTION, 3, Some(3), Some((2048, None))), Sfid, Some("sFID needs mu_s and sigma_s"));
        check(of(INCEPTION, 3, None, Some((2048, Some(2023)))), Sfid, None);
        check(of(INCEPTION, 3, None, Some((2048, Some(7)))), Sfid, Some("2023 features, the reference 7"));
        check(of(DEMO, 10, None, None), InceptionScore, None);
        check(of(DEMO, 9, None, None), InceptionScore, Some("the Inception score: 9 samples"));
        check(of(Widths { logits: None, ..DEMO }, 10, None, None), InceptionScore, Some("needs logits"));
        check(of(DEMO, 10, Some(4), None), PrecisionRecall, None);
        check(of(DEMO, 9, Some(4), None), PrecisionRecall, Some("9 samples for precision and recall"));
        check(of(DEMO, 10, Some(3), None), PrecisionRecall, Some("3 reference samples"));
        check(of(DEMO, 10, None, Some((128, None))), PrecisionRecall, Some("needs the reference's pictures"));
        check(of(DEMO, 20, Some(20), None), Kid, None);
        check(of(DEMO, 20, Some(19), None), Kid, Some("KID: 19 reference samples for KID"));
        check(of(DEMO, 20, None, Some((128, None))), Kid, Some("needs the reference's pictures"));
    }

    #[test]
    fn what_can_be_had_is_measured_and_why_not_the_others_is_told() {
        let all = BTreeSet::from([Metric::Fid, Metric::Sfid, Metric::PrecisionRecall, Metric::Kid]);
        let sides = Sides { widths: INCEPTION, samples: 15, reference: Some(15), statistics: Some((2048, Some(7))) };
        let (possible, left_out) = sides.possible(&all).unwrap();
        assert_eq!(possible, BTreeSet::from([Metric::Fid, Metric::PrecisionRecall]));
        let left_out: Vec<String> = left_out.iter().map(|LeftOut { metric, why }| format!("{metric}: {why}")).collect();
        let expected = [
            "sFID: the samples have 2023 features, the reference 7",
            "KID: 15 samples for KID are too few; at least 20 are needed",
        ];
        assert_eq!(left_out, expected);
        let (_, left_out) = Sides { reference: None, ..sides }.possible(&all).unwrap();
        let without: Vec<&str> =
            left_out.iter().filter(|left| left.why.contains("no pictures")).map(|left| left.metric).collect();
        assert_eq!(without, ["precision and recall", "KID"]);
        let error = Sides { samples: 2, ..sides }.possible(&all).unwrap_err().to_string();
        assert!(error.contains("FID: 2 samples are too few"), "{error}");
    }
}
