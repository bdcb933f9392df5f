//! How far a number would move with other samples.

use serde::Serialize;

use super::Blocks;

/// Student's t for 95 %, of two blocks, three and so on: of one degree of freedom fewer than there are blocks.
const STUDENT_T: [f64; Blocks::COUNT - 1] = [
    12.706_204_736_432_1,
    4.302_652_729_911_3,
    3.182_446_305_284_3,
    2.776_445_105_197_8,
    2.570_581_836_614_7,
    2.446_911_848_791_7,
    2.364_624_251_010_3,
    2.306_004_135_204_2,
    2.262_157_162_740_9,
];
/// The standard normal's quantile for 95 %.
const NORMAL: f64 = 1.959_963_984_540_054;

/// A number and its 95 % confidence interval over the draw of the samples.
///
/// The reference is held fixed, and so is the bias that FID and the Inception score have with few samples: intervals say how well
/// a number repeats with as many other samples, not how far it is from what infinitely many would give.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// Where the interval comes from.
    pub method: IntervalMethod,
    /// What it covers, in words; all else is held fixed.
    pub covers: &'static str,
}

/// What an interval covers unless it says more.
const SAMPLES: &str = "the draw of the samples";

/// How an interval was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Leaving out one of ten random blocks of samples at a time; Student's t (Shao & Wu 1989).
    BlockJackknife,
    /// Wilson 1927, of a fraction of independent samples.
    Wilson,
}

impl Estimate {
    /// `value`, and what comes out when each block is left out: of those that samples are in, at most ten. `least` bounds the
    /// interval from below; one block says nothing about it.
    pub(crate) fn jackknife(value: f64, without: &[f64], least: f64) -> Self {
        let count = without.len() as f64;
        let mean = without.iter().sum::<f64>() / count;
        let squares: f64 = without.iter().map(|value| (value - mean).powi(2)).sum();
        let quantile = without.len().checked_sub(2).and_then(|place| STUDENT_T.get(place));
        let half = quantile.map_or(f64::INFINITY, |t| t * ((count - 1.0) / count * squares).sqrt());
        Self {
            value,
            low: (value - half).max(least),
            high: value + half,
            method: IntervalMethod::BlockJackknife,
            covers: SAMPLES,
        }
    }

    /// The same, with another word on what its interval covers.
    pub(crate) fn covering(self, covers: &'static str) -> Self {
        Self { covers, ..self }
    }

    /// The same as far as it lies within 0 … 1.
    pub(crate) fn of_a_fraction(self) -> Self {
        Self { high: self.high.min(1.0), ..self }
    }

    /// The fraction `hits` / `count`, of at least one.
    pub(crate) fn fraction(hits: usize, count: usize) -> Self {
        let (n, p) = (count as f64, hits as f64 / count as f64);
        let z2 = NORMAL * NORMAL;
        let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = NORMAL / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        // Rounding must not put a fraction of 0 or 1 outside its own interval.
        let (low, high) = ((centre - half).clamp(0.0, p), (centre + half).clamp(p, 1.0));
        Self { value: p, low, high, method: IntervalMethod::Wilson, covers: SAMPLES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jackknife_of_a_mean_is_its_standard_error() {
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0];
        check_mean(&values, 2.262_157);
        // Of fewer blocks the quantile is another.
        check_mean(&values[..3], 4.302_653);
        check_mean(&values[..2], 12.706_205);
    }

    /// Blocks of one value each: the mean's standard error is s / √n.
    #[track_caller]
    fn check_mean(values: &[f64], quantile: f64) {
        let (sum, count) = (values.iter().sum::<f64>(), values.len() as f64);
        let mean = sum / count;
        let without: Vec<f64> = values.iter().map(|value| (sum - value) / (count - 1.0)).collect();
        let estimate = Estimate::jackknife(mean, &without, f64::NEG_INFINITY);
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let half = quantile * (variance / count).sqrt();
        for found in [estimate.high - mean, mean - estimate.low] {
            assert!((found - half).abs() < 1e-6 * half, "{estimate:?} instead of ± {half}");
        }
    }

    #[track_caller]
    fn check(hits: usize, count: usize, low: f64, high: f64) {
        let estimate = Estimate::fraction(hits, count);
        assert!((estimate.low - low).abs() < 5e-4 && (estimate.high - high).abs() < 5e-4, "{estimate:?}");
    }

    /// From Newcombe 1998, table I (method 3).
    #[test]
    fn wilsons_intervals_are_the_published_ones() {
        check(81, 263, 0.2553, 0.3662);
        check(15, 148, 0.0624, 0.1605);
        check(0, 20, 0.0, 0.1611);
        check(1, 29, 0.0061, 0.1718);
    }
}
