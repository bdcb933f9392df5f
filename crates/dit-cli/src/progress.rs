//! The progress bar: on a terminal only.

use std::{fmt::Write, io::IsTerminal};

use dit_sample::RunProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A bar of this form on stderr; hidden unless that is a terminal. `{rate}` is the number of positions a second.
pub fn bar(template: &str) -> ProgressBar {
    let terminal = std::io::stderr().is_terminal();
    let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        let _ = write!(out, "{:.1}", state.per_sec()); // a String, which takes everything
    };
    ProgressBar::with_draw_target(Some(0), target).with_style(style.with_key("rate", rate))
}

/// A bar over all steps of a run, with rate and time left.
pub struct StepBar(ProgressBar);

impl StepBar {
    /// Hidden unless stderr is a terminal.
    pub fn new() -> Self {
        Self(bar("{msg} {wide_bar} step {pos}/{len} {rate} steps/s {eta} left"))
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
