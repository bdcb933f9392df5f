//! What a person sees of a fetch: one bar a file on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dit_fetch::{Event, Observer, human_bytes};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shows events on standard error.
pub struct View {
    /// `None` where standard error is no terminal.
    bars: Option<MultiProgress>,
    files: Mutex<HashMap<String, File>>,
}

/// A file under way.
#[derive(Default)]
struct File {
    bar: Option<ProgressBar>,
    done: u64,
    total: Option<u64>,
    /// Tenths told so far, where there is no bar.
    tenths: u64,
}

impl View {
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        View { bars, files: Mutex::default() }
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        self.files().clear();
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
        }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line above the bars.
    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| print_err(text)),
            None => print_err(text),
        }
    }

    fn begin(&self, file: &str, start: u64, total: Option<u64>) {
        let mut files = self.files();
        let entry = files.entry(file.to_owned()).or_default();
        (entry.done, entry.total, entry.tenths) = (start, total, 0);
        let Some(bars) = &self.bars else { return };
        let bar = entry.bar.get_or_insert_with(|| bars.add(ProgressBar::no_length().with_message(short(file))));
        let template = match total {
            Some(_) => "{msg} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} left",
            None => "{msg} {spinner} {decimal_bytes} {decimal_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(start);
        bar.reset_eta();
    }

    fn advance(&self, file: &str, bytes: u64) {
        let mut files = self.files();
        let Some(entry) = files.get_mut(file) else { return };
        entry.done += bytes;
        match (&entry.bar, entry.total) {
            (Some(bar), _) => bar.set_position(entry.done),
            // Every tenth of a large file: enough for a log.
            (None, Some(total)) if total >= 100_000_000 => {
                let tenths = entry.done.saturating_mul(10) / total;
                if tenths > entry.tenths {
                    entry.tenths = tenths;
                    print_err(&format!("{file}: {tenths}0 % of {}", human_bytes(total)));
                }
            }
            (None, _) => {}
        }
    }

    fn end(&self, file: &str) {
        if let (Some(File { bar: Some(bar), .. }), Some(bars)) = (self.files().remove(file), &self.bars) {
            bar.finish_and_clear();
            bars.remove(&bar);
        }
    }
}

/// A line on standard error; the fetch goes on if nobody reads it any more.
fn print_err(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// `sd-vae-ft-mse/diffusion_pytorc…`: room must be left for the bar.
fn short(file: &str) -> String {
    const WIDTH: usize = 32;
    match file.char_indices().nth(WIDTH) {
        None => format!("{file:WIDTH$}"),
        Some(_) => file.chars().take(WIDTH - 1).chain(['…']).collect(),
    }
}

impl Observer for View {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Licence { names, licence, notice } => {
                self.line(&format!("licence of {}: {licence}. {notice}", names.join(", ")));
            }
            Event::Checking { file, total } => {
                self.begin(file, 0, Some(*total));
                if self.bars.is_none() && *total >= 100_000_000 {
                    self.line(&format!("{file}: hashing {}", human_bytes(*total)));
                }
            }
            Event::Downloading { file, from, start, total } => {
                self.begin(file, *start, *total);
                if self.bars.is_none() {
                    let size = total.map_or_else(|| "size unknown".to_owned(), human_bytes);
                    let resumed = match start {
                        0 => String::new(),
                        start => format!(", going on at {}", human_bytes(*start)),
                    };
                    self.line(&format!("{file}: downloading from {from} ({size}{resumed})"));
                }
            }
            Event::Converting { name, total } => {
                self.begin(name, 0, Some(*total));
                self.line(&format!("{name}: converting to safetensors"));
            }
            Event::Advanced { file, bytes } => self.advance(file, *bytes),
            Event::Restarted { file, why } => self.line(&format!("{file}: from the beginning again: {why}")),
            Event::Retrying { file, error, after, attempt, of } => {
                let seconds = after.as_secs_f32();
                self.line(&format!("{file}: {error}; again in {seconds:.1} s (attempt {attempt} of {of})"));
            }
            Event::NextAddress { file, error } => {
                let first = error.lines().next().unwrap_or_default();
                self.line(&format!("{file}: {first}; trying the next address"));
            }
            Event::Verified { file } => {
                self.end(file);
                self.line(&format!("{file}: verified"));
            }
            Event::Failed { file } => self.end(file),
            Event::Installed { name, .. } => self.end(name),
            Event::Note { text } => self.line(&format!("note: {text}")),
            // Events of later versions of the library.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_of_one_width() {
        #[track_caller]
        fn check(file: &str, expected: &str) {
            assert_eq!(short(file), expected);
        }
        check("tiny/a.pt", "tiny/a.pt                       ");
        check("12345678901234567890123456789012", "12345678901234567890123456789012");
        check("123456789012345678901234567890123", "1234567890123456789012345678901…");
        check("é/é", "é/é                             ");
    }
}
