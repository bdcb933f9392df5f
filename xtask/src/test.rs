//! `cargo xtask test`: every test of the workspace, and one line that sums them up.

use std::ffi::OsString;
use std::io::{BufReader, Read, Write};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::libtorch::{self, Wanted};
use crate::ui;
use crate::workspace::Workspace;

/// Set up libtorch and run all tests: units, integration, doctests
///
/// The same as `cargo test --workspace --no-fail-fast`, with a summary.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test -- -p dit-weights  # for cargo test\n  cargo xtask test --slow -- --release"
)]
pub struct Args {
    /// Also the tests that take minutes (sets DIT_SLOW_TESTS=1)
    #[arg(long)]
    slow: bool,
    /// Use the CUDA build of libtorch (see `cargo xtask libtorch --help`)
    #[arg(long)]
    cuda: bool,
    /// Handed to `cargo test`
    #[arg(last = true, value_name = "ARGS")]
    rest: Vec<OsString>,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let wanted = if args.cuda { Wanted::cuda() } else { Wanted::any() };
    libtorch::ensure(workspace, wanted)?;

    let start = Instant::now();
    let mut command = workspace.cargo();
    command.args(["test", "--no-fail-fast"]).args(whole(&args.rest)).args(&args.rest).stdout(Stdio::piped());
    if args.slow {
        command.env("DIT_SLOW_TESTS", "1");
    }
    let mut cargo = command.spawn().context("cargo does not start")?;
    let mut tally = Tally::default();
    forward(cargo.stdout.take().context("cargo's output is closed")?, std::io::stdout().lock(), &mut tally)?;
    let status = cargo.wait()?;

    println!("\n{}", tally.summary(start));
    for name in &tally.failures {
        println!("  failed: {name}");
    }
    if !status.success() && tally.failed == 0 {
        println!("cargo test itself failed ({status}); the reason is above");
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `--workspace`, unless packages are named: cargo would ignore the names.
fn whole(arguments: &[OsString]) -> Option<&'static str> {
    let to_cargo = arguments.iter().take_while(|argument| *argument != "--");
    let mut text = to_cargo.map(|argument| argument.to_string_lossy());
    let named = text.any(|argument| argument.starts_with("-p") || argument.starts_with("--package"));
    (!named).then_some("--workspace")
}

/// Copies the output as it comes (a test's name appears before its result) and counts its finished lines.
fn forward(output: impl Read, mut shown: impl Write, tally: &mut Tally) -> Result<()> {
    let mut output = BufReader::with_capacity(1 << 16, output);
    let mut line = Vec::new();
    let mut chunk = [0; 1 << 12];
    loop {
        let count = output.read(&mut chunk)?;
        let Some(text) = chunk.get(..count).filter(|text| !text.is_empty()) else { break };
        shown.write_all(text)?;
        shown.flush()?;
        for &byte in text {
            if byte == b'\n' {
                tally.line(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    Ok(())
}

/// What the result lines of all test binaries add up to.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
}

impl Tally {
    fn line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            for part in counts.split([';', '.']) {
                match part.trim().split_once(' ') {
                    Some((count, "passed")) => self.passed += count.parse().unwrap_or(0),
                    Some((count, "failed")) => self.failed += count.parse().unwrap_or(0),
                    Some((count, "ignored")) => self.ignored += count.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }

    fn summary(&self, start: Instant) -> String {
        let Self { passed, failed, ignored, .. } = self;
        format!(
            "all tests: {} in {}\n{passed} passed, {failed} failed, {ignored} skipped",
            if *failed == 0 { "no failure" } else { "FAILURES" },
            ui::duration(start.elapsed())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_packages_are_tested_alone() {
        for (arguments, expected) in [
            (&[][..], Some("--workspace")),
            (&["-p", "dit-weights"], None),
            (&["-pdit-weights", "--release"], None),
            (&["--package=dit-weights"], None),
            (&["--release", "--", "-p"], Some("--workspace")),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert_eq!(whole(&arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_summary_adds_up_every_binary() {
        let output = "\
running 2 tests
test a::b ... ok
test c::d ... FAILED
test src/lib.rs - e (line 3) ... ok
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
a line that says test result: in its middle
test result: ok. 40 passed; 0 failed; 3 ignored; 0 measured; 7 filtered out; finished in 1.20s
";
        let mut tally = Tally::default();
        let mut shown = Vec::new();
        forward(output.as_bytes(), &mut shown, &mut tally).unwrap();
        assert_eq!(shown, output.as_bytes());
        assert_eq!((tally.passed, tally.failed, tally.ignored), (41, 1, 3));
        assert_eq!(tally.failures, ["c::d"]);
    }
}
