//! The progress bar: on a terminal only.

use std::{fmt::Write, io::IsTerminal};

use dit_sample::RunProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A bar over all steps of a run, with rate and time left.
pub struct StepBar(ProgressBar);

impl StepBar {
    /// Hidden unless stderr is a terminal.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{msg} {wide_bar} step {pos}/{len} {rate} {eta} left";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{:.1} steps/s", state.per_sec()); // a String, which takes everything
        }));
        Self(bar)
    }

    /// Shows where the run is.
    pub fn show(&self, progress: RunProgress) {
        self.0.set_length(progress.steps as u64);
        self.0.set_position(progress.steps_done as u64);
        self.0.set_message(format!("{}/{} pictures", progress.images_done, progress.images));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
