/// A point of a series, with the extent of its band: `low` and `high` are `y` where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Along the axis to the right.
    pub x: f64,
    /// Along the axis upwards.
    pub y: f64,
    /// Lower edge of the band.
    pub low: f64,
    /// Upper edge of the band.
    pub high: f64,
}

/// How the points of a series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// Joined by a line.
    Line,
    /// Joined by a dashed line: for references.
    Dashed,
    /// A dot at each.
    Dots,
    /// A line and a dot at each.
    LineAndDots,
}

/// Named points in the order in which they are joined. A point that has no place (NaN, or 0 on a logarithmic axis) breaks the
/// line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
    pub(crate) marks: Marks,
    pub(crate) colour: Option<usize>,
}

impl Series {
    /// Joined points.
    pub fn line(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y)| Point { x, y, low: y, high: y }).collect();
        Self { name: name.into(), points, marks: Marks::Line, colour: None }
    }

    /// Joined points within a band.
    pub fn band(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), marks: Marks::Line, colour: None }
    }

    /// The same points, drawn otherwise.
    #[must_use]
    pub fn drawn_as(mut self, marks: Marks) -> Self {
        self.marks = marks;
        self
    }

    /// In the colour of this number, so that series that belong together share one: there are eight, counted from 0 and taken
    /// round. Without it, a series has the colour of its place in the chart.
    #[must_use]
    pub fn coloured(mut self, colour: usize) -> Self {
        self.colour = Some(colour);
        self
    }

    pub(crate) fn has_band(&self) -> bool {
        self.points.iter().any(|point| point.low != point.y || point.high != point.y)
    }
}
