use std::fmt;

use crate::{Error, ticks};

/// How values are spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, equal lengths.
    Linear,
    /// Equal ratios, equal lengths; shows values above 0 alone.
    Log,
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Log => "logarithmic",
        })
    }
}

impl Scale {
    /// Whether a value has a place.
    pub(crate) fn shows(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Linear || value > 0.0)
    }

    /// The value on the scale where equal differences are equal lengths.
    pub(crate) fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }
}

/// One of a chart's two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    label: String,
    scale: Scale,
    limits: Option<(f64, f64)>,
}

impl Axis {
    /// A linear axis over all points.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Linear, limits: None }
    }

    /// A logarithmic axis over all points above 0.
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log, limits: None }
    }

    /// Shows `low` to `high`, whatever the points are; lines are cut there.
    #[must_use]
    pub fn between(mut self, low: f64, high: f64) -> Self {
        self.limits = Some((low, high));
        self
    }

    /// What is written beside it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How values are spread.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The range shown for `values`, and its ticks; none where no value has a place.
    pub(crate) fn span(&self, values: impl Iterator<Item = f64>) -> Result<Option<Span>, Error> {
        let range = match self.limits {
            Some((low, high)) => {
                if !(self.scale.shows(low) && self.scale.shows(high) && low < high) {
                    return Err(Error::Limits { label: self.label.clone(), low, high, scale: self.scale });
                }
                (low, high)
            }
            None => {
                let shown = values.filter(|value| self.scale.shows(*value));
                let widen = |range: Option<(f64, f64)>, value: f64| {
                    let (low, high) = range.unwrap_or((value, value));
                    Some((low.min(value), high.max(value)))
                };
                match shown.fold(None, widen) {
                    None => return Ok(None),
                    Some(range) => self.roomy(range),
                }
            }
        };
        let ticks = match self.scale {
            Scale::Linear => ticks::linear(range.0, range.1),
            Scale::Log => ticks::log(range.0, range.1),
        };
        Ok(Some(Span { scale: self.scale, from: self.scale.place(range.0), to: self.scale.place(range.1), ticks }))
    }

    /// A range with an extent, and a little air.
    fn roomy(&self, (low, high): (f64, f64)) -> (f64, f64) {
        match self.scale {
            Scale::Linear => {
                let extent = high - low;
                let air = if extent > 0.0 { 0.02 * extent } else { 0.5 * low.abs().max(1.0) };
                // A quantity that begins at 0 does not need a place for less.
                (if low == 0.0 { 0.0 } else { low - air }, high + air)
            }
            Scale::Log => {
                let ratio = if high > low { (high / low).powf(0.02) } else { 2.0 };
                (low / ratio, high * ratio)
            }
        }
    }
}

/// The part of an axis that is shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    scale: Scale,
    from: f64,
    to: f64,
    pub ticks: Vec<f64>,
}

impl Span {
    /// Where a value lies: 0 at the beginning of the axis, 1 at its end; none where it has no place.
    pub fn share(&self, value: f64) -> Option<f64> {
        self.scale.shows(value).then(|| (self.scale.place(value) - self.from) / (self.to - self.from))
    }
}
