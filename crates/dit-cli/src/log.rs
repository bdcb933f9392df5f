//! What the libraries log, on stderr: warnings look like this program's own, all else as tracing has it.

use std::{
    fmt::{self, Debug, Display, Write},
    io::IsTerminal,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

/// `RUST_LOG` decides, else the number of -v.
pub fn to_stderr(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(Lines::default())
        .init();
}

struct Lines {
    others: Format<Full, ()>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { others: Format::default().without_time().with_target(false) }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let kind = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => return self.others.format_event(context, writer, event),
        };
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        writeln!(writer, "{kind}: {sentence}")
    }
}

/// `message (field value, field value): error`.
#[derive(Default)]
struct Sentence {
    message: String,
    fields: String,
    error: String,
}

impl Sentence {
    fn add(&mut self, field: &Field, value: &dyn Display) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            "error" => write!(self.error, ": {value}"),
            // Of libraries that log by other means: where in their source.
            name if name.starts_with("log.") => Ok(()),
            name => {
                let comma = if self.fields.is_empty() { "" } else { ", " };
                write!(self.fields, "{comma}{name} {value}")
            }
        };
    }
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, &value);
    }
}

impl Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, fields, error } = self;
        match fields.is_empty() {
            true => write!(f, "{message}{error}"),
            false => write!(f, "{message} ({fields}){error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[track_caller]
    fn check(log: impl FnOnce(), expected: &str) {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Lines::default())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        assert_eq!(String::from_utf8(written.0.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn warnings_are_sentences() {
        let (path, error) = ("run/log.jsonl", io::Error::other("no room\n  help: make some"));
        check(|| tracing::warn!("no mark"), "warning: no mark\n");
        check(|| tracing::warn!(before = "1", now = 2, "other threads"), "warning: other threads (before 1, now 2)\n");
        check(
            || tracing::warn!(path = %path, %error, "no log; training goes on"),
            "warning: no log; training goes on (path run/log.jsonl): no room\n  help: make some\n",
        );
        check(|| tracing::error!("a thread panicked"), "error: a thread panicked\n");
        check(|| tracing::info!(step = 3, "a checkpoint"), " INFO a checkpoint step=3\n");
    }
}
