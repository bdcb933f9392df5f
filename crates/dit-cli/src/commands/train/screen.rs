//! What is seen of a run while it runs.

use std::time::{Duration, Instant};

use dit_train::{Event, Losses, Observer, ObserverError, Remedy};
use indicatif::ProgressBar;

use super::ending::{CurrentStage, Stage};
use crate::{progress::bar, speak::say};

/// Where no bar can be drawn, how often a line says how far it is.
const BETWEEN_LINES: Duration = Duration::from_secs(30);
/// The share of the last step in the figures that the bar shows.
const NEW_SHARE: f64 = 0.05;

/// The progress bar on a terminal, else a line now and then; and a sentence for everything out of the ordinary.
pub struct Screen {
    bar: ProgressBar,
    steps: u64,
    begun_at: u64,
    begun: Instant,
    loss: Option<f64>,
    seconds_per_step: Option<f64>,
    last_line: Option<Instant>,
    /// The last window's steps and means, for the summary.
    last: Option<(u64, Losses)>,
    /// Decays of averages that will still hold initial weights.
    lagging: Vec<f64>,
    stage: CurrentStage,
}

impl Screen {
    /// Of a run whose stage it tells to the thread that hears signals.
    pub fn new(stage: CurrentStage) -> Self {
        Self {
            bar: bar("{msg} {wide_bar} step {pos}/{len}"),
            steps: 0,
            begun_at: 0,
            begun: Instant::now(),
            loss: None,
            seconds_per_step: None,
            last_line: None,
            last: None,
            lagging: Vec::new(),
            stage,
        }
    }

    /// Above the bar, where there is one.
    fn tell(&self, text: std::fmt::Arguments<'_>) {
        self.bar.suspend(|| say(text));
    }

    fn left(&self, step: u64) -> String {
        match self.seconds_per_step {
            Some(seconds) => duration(seconds * self.steps.saturating_sub(step) as f64),
            None => "?".to_owned(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Steps taken by this process, and how long it took.
    pub fn progress(&self, step: u64) -> (u64, Duration) {
        (step.saturating_sub(self.begun_at), self.begun.elapsed())
    }

    /// Whether it was warned that the average with this decay will still hold initial weights at the end.
    pub fn lags(&self, decay: f64) -> bool {
        self.lagging.contains(&decay)
    }

    /// How many steps the last window has, and means over them.
    pub fn last_window(&self) -> Option<(u64, Losses)> {
        self.last
    }
}

impl Observer for &mut Screen {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        let mix = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + NEW_SHARE * (new - old)));
        match event {
            Event::Started { step, steps, .. } => {
                (self.begun_at, self.steps, self.begun) = (*step, *steps, Instant::now());
                self.bar.set_length(*steps);
                self.bar.set_position(*step);
            }
            Event::Step(report) => {
                self.loss = mix(self.loss, report.losses.total);
                // The first step of all warms up.
                if report.step > self.begun_at + 1 {
                    self.seconds_per_step = mix(self.seconds_per_step, report.time.as_secs_f64());
                }
                self.bar.set_position(report.step);
                if !self.bar.is_hidden() {
                    let speed = self.seconds_per_step.map_or(0.0, |seconds| report.images as f64 / seconds);
                    self.bar.set_message(format!(
                        "loss {:.4}, lr {}, {speed:.1} images/s, {} left",
                        self.loss.unwrap_or(f64::NAN),
                        rate(report.lr),
                        self.left(report.step)
                    ));
                }
            }
            Event::Window(window) => {
                self.last = Some((window.steps, window.losses));
                let due = self.last_line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES);
                if self.bar.is_hidden() && due {
                    self.last_line = Some(Instant::now());
                    say(format_args!(
                        "step {} of {}: {}, lr {}, gradient {:.3}, {:.1} images/s, {} left",
                        window.step,
                        self.steps,
                        losses(&window.losses),
                        rate(window.lr),
                        window.grad_norm,
                        window.images_per_second,
                        self.left(window.step)
                    ));
                }
            }
            Event::Validation(report) => {
                let text = |of: &dit_train::BucketLosses| of.mean().map_or("none".to_owned(), |mean| losses(&mean));
                self.tell(format_args!(
                    "step {}: held out {}; averaged weights {}",
                    report.step,
                    text(&report.raw),
                    text(&report.ema)
                ));
            }
            Event::Evaluation(report) => self.tell(format_args!(
                "step {}: FID of {} samples {:.3} ({:.3} to {:.3}; {} features, not comparable beyond this run)",
                report.step, report.samples, report.fid, report.interval[0], report.interval[1], report.features
            )),
            Event::CheckpointFailed { step, error, newest } => {
                let room = if error.is_disk_full() { "; make room" } else { "" };
                let kept = match newest {
                    Some(newest) => format!("the one of step {newest} is intact"),
                    None => "there is none before it, so that nothing could be continued".to_owned(),
                };
                self.tell(format_args!(
                    "warning: no checkpoint of step {step}: {error}\n  {kept}; training goes on{room}"
                ));
            }
            Event::WaitingForRoom { step, at_most, error } => {
                self.stage.set(Stage::WaitingForRoom);
                let (until, give_up) = match at_most {
                    Some(time) => (format!("for {}", duration(time.as_secs_f64())), "a second Ctrl-C gives it up"),
                    None => ("until it can".to_owned(), "Ctrl-C gives it up"),
                };
                self.tell(format_args!(
                    "warning: the last checkpoint, of step {step}, cannot be written: {error}\n  \
                     it is tried again {until}: make room; {give_up}"
                ));
            }
            Event::NonFinite { report, remedy } => match remedy {
                Remedy::Skipped => self.tell(format_args!("warning: {report}; the step is left out")),
                Remedy::RolledBack { to } => {
                    self.bar.set_position(*to);
                    self.tell(format_args!("warning: {report}; back to the checkpoint of step {to}"));
                }
            },
            Event::EmaLags(lag) => {
                self.lagging.push(lag.decay);
                self.tell(format_args!(
                    "warning: {lag}\n  help: sample from model.safetensors, or use a smaller decay in [ema]"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A learning rate, short.
fn rate(lr: f64) -> String {
    format!("{lr:.2e}")
}

/// The loss and its terms.
pub fn losses(losses: &Losses) -> String {
    match losses {
        Losses { total, mse: Some(mse), vb: Some(vb) } => format!("loss {total:.4} (mse {mse:.4}, vb {vb:.5})"),
        Losses { total, .. } => format!("loss {total:.4}"),
    }
}

/// Hours, minutes and seconds.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds / 86_400 {
        0 => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        days => format!("{days} days {} h", seconds / 3600 % 24),
    }
}
