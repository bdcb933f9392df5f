//! What is said on stderr, and printed on stdout: without a panic when the other end is closed.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write},
};

use anyhow::Result;
use serde::Serialize;

/// A line on stderr. A closed stderr does not stop a run.
pub fn say(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// So many of something, in words.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Text on stdout. A reader that has seen enough (`| head`) is no error.
pub fn print_out(text: Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// `value` as JSON on stdout.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print_out(format_args!("{}\n", serde_json::to_string_pretty(value)?))
}
