use crate::Scale;

/// Why a chart cannot be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing to draw.
    #[error(
        "the chart {title:?} has no point that its axes can show\n  help: points must be finite, and above 0 on a logarithmic axis"
    )]
    NoPoints {
        /// The chart's title.
        title: String,
    },
    /// Limits between which nothing lies.
    #[error("the limits {low} to {high} of the axis {label:?} enclose nothing on a {scale} scale")]
    Limits {
        /// The axis' label.
        label: String,
        /// Lower limit.
        low: f64,
        /// Upper limit.
        high: f64,
        /// The scale.
        scale: Scale,
    },
}
