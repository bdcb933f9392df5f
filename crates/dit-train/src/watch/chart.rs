use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dit_files::write_atomically;
use dit_plot::{Axis, Chart, Marks, Series};

use super::{JsonLog, Line, ReferenceLoss, leftovers::remove_leftovers};
use crate::{Event, Observer, ObserverError, Remedy};

/// The chart's name in the run's folder.
const NAME: &str = "loss.svg";
/// The picture is drawn again no more often than this, and at each checkpoint.
const PAUSE: Duration = Duration::from_secs(20);

/// Draws `loss.svg`: the training loss, the validation losses, and what published models had.
#[derive(Debug)]
pub struct LossChart {
    run: PathBuf,
    title: String,
    expected: &'static [ReferenceLoss],
    train: Vec<(u64, f64)>,
    validation: Vec<(u64, f64)>,
    validation_ema: Vec<(u64, f64)>,
    drawn: Option<Instant>,
    complained: bool,
}

impl LossChart {
    /// The chart of the run in this folder; `title` stands above it.
    pub fn new(run: &Path, title: impl Into<String>, expected: &'static [ReferenceLoss]) -> Self {
        Self {
            run: run.to_owned(),
            title: title.into(),
            expected,
            train: Vec::new(),
            validation: Vec::new(),
            validation_ema: Vec::new(),
            drawn: None,
            complained: false,
        }
    }

    /// Forgets what is later than `step`, after reading what the log has where nothing is known yet.
    fn continue_at(&mut self, step: u64) {
        if self.train.is_empty() && step > 0 {
            // Without the log, the curves begin here.
            JsonLog::read(&self.run).unwrap_or_default().iter().for_each(|line| self.add(line));
        }
        for points in [&mut self.train, &mut self.validation, &mut self.validation_ema] {
            points.retain(|(at, _)| *at <= step);
        }
    }

    fn add(&mut self, line: &Line) {
        let push =
            |points: &mut Vec<(u64, f64)>, step: u64, loss: Option<f64>| points.extend(loss.map(|loss| (step, loss)));
        match line {
            Line::Train { step, losses, .. } => push(&mut self.train, *step, losses.loss),
            Line::Validation { step, raw, ema, .. } => {
                push(&mut self.validation, *step, raw.loss);
                push(&mut self.validation_ema, *step, ema.loss);
            }
            _ => {}
        }
    }

    fn draw(&mut self) {
        self.drawn = Some(Instant::now());
        let line = |name: &str, points: &[(u64, f64)]| {
            Series::line(name, points.iter().map(|(step, loss)| (*step as f64, *loss)))
        };
        let positive = self.train.iter().all(|(_, loss)| *loss > 0.0);
        let loss = if positive { Axis::log("loss") } else { Axis::linear("loss") };
        let mut chart =
            Chart::new(&self.title, Axis::linear("step"), loss).with(line("training", &self.train).coloured(0));
        for (name, points, colour) in
            [("validation", &self.validation, 1), ("validation, average", &self.validation_ema, 2)]
        {
            if !points.is_empty() {
                chart = chart.with(line(name, points).drawn_as(Marks::LineAndDots).coloured(colour));
            }
        }
        // What is still to come would squeeze the curves.
        let reached = self.train.last().map_or(0, |(step, _)| *step);
        for (colour, reference) in (5..).zip(self.expected) {
            let late = reference.late.map_or(String::new(), |late| format!("{} late: about {late}", reference.model));
            for (name, band, marks) in [
                (reference.label(), reference.band(reached), Marks::Line),
                (late, reference.late_band(reached), Marks::Dashed),
            ] {
                if !band.is_empty() {
                    chart = chart.with(Series::band(name, band).drawn_as(marks).coloured(colour));
                }
            }
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

impl Observer for LossChart {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        if let Some(line) = Line::of(event) {
            self.add(&line);
        }
        if let Event::Started { .. } = event {
            remove_leftovers(&self.run.join(NAME));
        }
        match event {
            Event::Started { step, .. } | Event::NonFinite { remedy: Remedy::RolledBack { to: step }, .. } => {
                self.continue_at(*step);
            }
            Event::CheckpointWritten { .. } | Event::Validation(_) => self.draw(),
            Event::Window(_) if self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) => self.draw(),
            _ => {}
        }
        Ok(())
    }
}
