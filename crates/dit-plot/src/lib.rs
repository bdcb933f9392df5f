//! Line charts as SVG.
//!
//! A [`Chart`] has a title, two axes (linear or logarithmic) and several [`Series`], each a line, dots or both, with an optional
//! band around it. [`Chart::to_svg`] is a function of the chart alone: the same bytes each time, on each machine. The picture
//! follows the reader's light or dark preference where the viewer knows one, and is readable on its own background where it
//! does not.
//!
//! ```
//! use dit_plot::{Axis, Chart, Series};
//!
//! let loss = (1..=100).map(|step| (f64::from(step), 1.0 / f64::from(step)));
//! let chart = Chart::new("Training loss", Axis::linear("step"), Axis::log("loss"))
//!     .with(Series::line("mse", loss));
//! let svg = chart.to_svg()?;
//! assert!(svg.starts_with("<svg") && svg.contains("Training loss"));
//! # Ok::<(), dit_plot::Error>(())
//! ```
//!
//! What it never does: open a file, measure text with a font (widths are estimated), or draw anything but lines over numbers.
#![deny(missing_docs, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod axis;
mod chart;
mod error;
mod number;
mod series;
mod svg;
mod thin;
mod ticks;

pub use axis::{Axis, Scale};
pub use chart::Chart;
pub use error::Error;
pub use series::{Marks, Point, Series};
