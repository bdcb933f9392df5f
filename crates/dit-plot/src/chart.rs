use crate::{Axis, Error, Series, svg};

/// A chart: a title, two axes, and series over them.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

impl Chart {
    /// Without series yet.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, series: Vec::new() }
    }

    /// With one more series.
    #[must_use]
    pub fn with(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// The picture, 720 × 440.
    ///
    /// # Errors
    /// [`Error::NoPoints`]; [`Error::Limits`].
    pub fn to_svg(&self) -> Result<String, Error> {
        svg::draw(self)
    }
}
