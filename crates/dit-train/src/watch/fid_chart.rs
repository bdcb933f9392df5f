use std::path::{Path, PathBuf};

use dit_files::write_atomically;
use dit_plot::{Axis, Chart, Marks, Point, Series};

use super::{JsonLog, Line, leftovers::remove_leftovers};
use crate::{Event, Observer, ObserverError, Remedy};

/// The chart's name in the run's folder.
const NAME: &str = "fid.svg";

/// Draws `fid.svg` when samples were measured: FID over steps in a band of its interval, a line for each way of measuring.
#[derive(Debug)]
pub struct FidChart {
    run: PathBuf,
    title: String,
    /// What was measured in which way, in the order of the log.
    points: Vec<(String, u64, Point)>,
    complained: bool,
}

impl FidChart {
    /// The chart of the run in this folder; `title` stands above it.
    pub fn new(run: &Path, title: impl Into<String>) -> Self {
        Self { run: run.to_owned(), title: title.into(), points: Vec::new(), complained: false }
    }

    /// Forgets what is later than `step`, after reading what the log has where nothing is known yet.
    fn continue_at(&mut self, step: u64) {
        if self.points.is_empty() && step > 0 {
            // Without the log, the curve begins here.
            JsonLog::read(&self.run).unwrap_or_default().iter().for_each(|line| self.add(line));
        }
        self.points.retain(|(_, at, _)| *at <= step);
    }

    fn add(&mut self, line: &Line) {
        if let Line::Evaluation { step, samples, features, cfg_scale, fid, interval: [low, high], .. } = line {
            let way = format!("{samples} samples, {features}, guidance {cfg_scale}");
            self.points.push((way, *step, Point { x: *step as f64, y: *fid, low: *low, high: *high }));
        }
    }

    fn draw(&mut self) {
        let mut ways: Vec<&str> = Vec::new();
        for (way, _, _) in &self.points {
            if !ways.contains(&way.as_str()) {
                ways.push(way);
            }
        }
        let positive = self.points.iter().all(|(_, _, point)| point.low > 0.0);
        let label = "FID of few samples: not comparable beyond this run";
        let fid = if positive { Axis::log(label) } else { Axis::linear(label) };
        let mut chart = Chart::new(&self.title, Axis::linear("step"), fid);
        for way in ways {
            let of = self.points.iter().filter(|(other, _, _)| other == way).map(|(_, _, point)| *point);
            chart = chart.with(Series::band(way, of).drawn_as(Marks::LineAndDots));
        }
        // Without a point there is no picture yet.
        let Ok(svg) = chart.to_svg() else { return };
        let path = self.run.join(NAME);
        if let Err(error) = write_atomically(&path, svg.as_bytes())
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(path = %path.display(), %error, "the chart cannot be written; training goes on");
        }
    }
}

impl Observer for FidChart {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        if let Event::Started { .. } = event {
            remove_leftovers(&self.run.join(NAME));
        }
        match event {
            Event::Started { step, .. } | Event::NonFinite { remedy: Remedy::RolledBack { to: step }, .. } => {
                self.continue_at(*step);
            }
            Event::Evaluation(_) => {
                if let Some(line) = Line::of(event) {
                    self.add(&line);
                }
                self.draw();
            }
            _ => {}
        }
        Ok(())
    }
}
