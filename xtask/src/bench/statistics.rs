//! Medians and quartiles: a busy moment moves neither.

use serde::{Deserialize, Serialize};

/// The middle of some values and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub median: f64,
    /// A quarter of the values lies below.
    pub low: f64,
    /// A quarter of the values lies above.
    pub high: f64,
}

impl Summary {
    /// None of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { median: quantile(&sorted, 0.5)?, low: quantile(&sorted, 0.25)?, high: quantile(&sorted, 0.75)? })
    }
}

/// Between the two nearest values, in proportion.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = share * sorted.len().checked_sub(1)? as f64;
    let below = *sorted.get(position.floor() as usize)?;
    let above = *sorted.get(position.ceil() as usize)?;
    Some(below + (above - below) * position.fract())
}

/// |a − b| / |b|, both as vectors; none where lengths differ or a value is not finite.
pub fn relative_difference(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.len() != b.len() || a.iter().chain(b).any(|value| !value.is_finite()) {
        return None;
    }
    let squares = |terms: &mut dyn Iterator<Item = f64>| terms.map(|term| term * term).sum::<f64>();
    let difference = squares(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let norm = squares(&mut b.iter().map(|&b| f64::from(b)));
    (norm > 0.0).then(|| (difference / norm).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], expected: Option<(f64, f64, f64)>) {
        let found = Summary::of(values).map(|summary| (summary.low, summary.median, summary.high));
        assert_eq!(found, expected);
    }

    #[test]
    fn quartiles_are_between_neighbours() {
        check(&[], None);
        check(&[3.0], Some((3.0, 3.0, 3.0)));
        check(&[4.0, 1.0], Some((1.75, 2.5, 3.25)));
        check(&[9.0, 1.0, 5.0, 3.0, 7.0], Some((3.0, 5.0, 7.0)));
    }

    #[test]
    fn a_wrong_result_is_no_small_difference() {
        assert_eq!(relative_difference(&[3.0, 4.0], &[3.0, 4.0]), Some(0.0));
        assert_eq!(relative_difference(&[3.0, 5.0], &[3.0, 4.0]), Some(0.2));
        assert_eq!(relative_difference(&[3.0], &[3.0, 4.0]), None);
        assert_eq!(relative_difference(&[f32::NAN], &[1.0]), None);
    }
}
