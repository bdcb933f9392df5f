//! What a person sees while waiting: a bar on a terminal, a line otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One line about what happens now.
pub fn say(line: impl std::fmt::Display) {
    eprintln!("{line}");
}

/// A bar over bytes on a terminal; elsewhere one line at its start.
pub fn byte_bar(label: &str, total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        say(label);
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes}, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(label.to_owned());
    bar
}

/// `0.4 s`, `41 s`, `5 min 12 s`.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// Named stages of a command and how long each took.
pub struct Stages {
    started: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Stages {
    pub fn new() -> Self {
        Self { started: Instant::now(), done: Vec::new() }
    }

    pub fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        let value = stage()?;
        self.done.push((name, start.elapsed()));
        Ok(value)
    }

    /// `libtorch 14 s, build 4 min 02 s, sample 21 s; 4 min 37 s in all`.
    pub fn summary(&self) -> String {
        let parts: Vec<String> = self.done.iter().map(|(name, time)| format!("{name} {}", duration(*time))).collect();
        format!("{}; {} in all", parts.join(", "), duration(self.started.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: f64, expected: &str) {
        assert_eq!(duration(Duration::from_secs_f64(seconds)), expected);
    }

    #[test]
    fn durations_read_as_a_person_says_them() {
        check(0.0, "0.0 s");
        check(9.94, "9.9 s");
        check(10.0, "10 s");
        check(59.9, "59 s");
        check(60.0, "1 min 00 s");
        check(3725.0, "62 min 05 s");
    }
}
