//! `cargo xtask test`: every test of the workspace, or those of what has kernels for Arm in an emulator, what was left out, and one line that sums them up.
//!
//! A test that finds nothing to do here, on a machine without AVX-512 say, prints `SKIPPED: ` and why, and passes. The harness keeps what
//! passing tests print to itself unless it is asked to show that, in a list after them: that list is read here, and not shown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::emulation::{self, Emulation};
use crate::libtorch::{self, Wanted};
use crate::ui;
use crate::workspace::Workspace;

/// Set up libtorch and run all tests: units, integration, doctests
///
/// As `cargo test --workspace --no-fail-fast`, and a summary, which also tells what tests left out, and why.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test -- -p dit-weights  # for cargo test\n  cargo xtask test --slow -- --release\n  cargo xtask test --arm -- --release        # docs/testing.md"
)]
pub struct Args {
    /// Also the tests that take minutes (sets DIT_SLOW_TESTS=1)
    #[arg(long)]
    slow: bool,
    /// Use the CUDA build of libtorch (see `cargo xtask libtorch --help`)
    #[arg(long)]
    cuda: bool,
    /// Build for an Arm CPU, and run by QEMU what has kernels for one (tens of minutes; says which tools it needs)
    #[arg(long, conflicts_with = "cuda")]
    arm: bool,
    /// Handed to `cargo test`
    #[arg(last = true, value_name = "ARGS")]
    rest: Vec<OsString>,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let emulation = args.arm.then(Emulation::set_up).transpose()?;
    if emulation.is_none() {
        libtorch::ensure(workspace, if args.cuda { Wanted::cuda() } else { Wanted::any() })?;
    }

    let start = Instant::now();
    let mut tally = Tally::default();
    let succeeded = match &emulation {
        None => test(cargo_test(workspace, args, &["--workspace"]), args, &mut tally)?,
        Some(emulation) => {
            let mut succeeded = true;
            for (cpu, what) in emulation::CPUS {
                ui::say(format_args!("by the emulator, as on an Arm CPU {what}"));
                let packages = emulation::PACKAGES.map(|name| ["--package", name]);
                let mut cargo = cargo_test(workspace, args, packages.as_flattened());
                emulation.apply(&mut cargo, cpu)?;
                succeeded &= test(cargo, args, &mut tally)?;
            }
            succeeded
        }
    };

    println!("\n{}", tally.summary(start));
    for name in &tally.failures {
        println!("  failed: {name}");
    }
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `cargo test` of `packages`, unless some are named.
fn cargo_test(workspace: &Workspace, args: &Args, packages: &[&str]) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--no-fail-fast"]);
    if !names_packages(&args.rest) {
        cargo.args(packages);
    }
    if args.slow {
        cargo.env("DIT_SLOW_TESTS", "1");
    }
    cargo
}

/// Runs it with what it is to be handed, and counts. Gives whether all is well.
fn test(mut cargo: Command, args: &Args, tally: &mut Tally) -> Result<bool> {
    cargo.args(&args.rest).args(to_harness(&args.rest)).stdout(Stdio::piped());
    let failed = tally.failed;
    let mut cargo = cargo.spawn().context("cargo does not start")?;
    forward(cargo.stdout.take().context("cargo's output is closed")?, std::io::stdout().lock(), tally)?;
    let status = cargo.wait()?;
    if !status.success() && tally.failed == failed {
        println!("cargo test itself failed ({status}); the reason is above");
    }
    Ok(status.success())
}

/// Whether packages are named, which cargo would ignore beside `--workspace`.
fn names_packages(arguments: &[OsString]) -> bool {
    let to_cargo = arguments.iter().take_while(|argument| *argument != "--");
    let mut text = to_cargo.map(|argument| argument.to_string_lossy());
    text.any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

/// That it is to show what passing tests print, unless it was told about that; behind a `--`, if there is none yet.
fn to_harness(arguments: &[OsString]) -> &'static [&'static str] {
    let has = |flags: &[&str]| arguments.iter().any(|argument| flags.iter().any(|flag| argument == flag));
    match (has(&["--show-output", "--nocapture", "--no-capture"]), has(&["--"])) {
        (true, _) => &[],
        (false, true) => &["--show-output"],
        (false, false) => &["--", "--show-output"],
    }
}

/// What the list of what passing tests printed begins with; `test result:`, or that of failed ones, ends it.
const PRINTED: &[u8] = b"successes:";

/// Copies the output as it comes (a test's name appears before its result), but for what passing tests printed, and counts its lines.
fn forward(mut output: impl Read, mut shown: impl Write, tally: &mut Tally) -> Result<()> {
    let mut line = Vec::new();
    // Bytes of the line that are shown already, and whether it is shown at all.
    let (mut done, mut hidden) = (0, false);
    let mut chunk = [0; 1 << 12];
    loop {
        let count = output.read(&mut chunk)?;
        let Some(text) = chunk.get(..count).filter(|text| !text.is_empty()) else { break };
        for &byte in text {
            line.push(byte);
            if byte == b'\n' {
                let whole = line.trim_ascii_end();
                let ends = whole.starts_with(b"test result: ") || whole == b"failures:";
                hidden = !ends && (hidden || whole == PRINTED);
                if !hidden {
                    shown.write_all(&line[done..])?;
                }
                tally.line(&String::from_utf8_lossy(whole), hidden);
                line.clear();
                done = 0;
            }
        }
        if !hidden && !PRINTED.starts_with(&line) {
            shown.write_all(&line[done..])?;
            done = line.len();
        }
        shown.flush()?;
    }
    if !hidden {
        shown.write_all(&line[done..])?;
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
    /// Why tests left something out, and how many did.
    skipped: BTreeMap<String, u64>,
}

impl Tally {
    /// A line, or one of what a passing test `printed`.
    fn line(&mut self, line: &str, printed: bool) {
        if let Some(why) = line.strip_prefix("SKIPPED: ") {
            *self.skipped.entry(why.to_owned()).or_default() += 1;
        } else if printed {
            // Whatever it looks like.
        } else if let Some(counts) = line.strip_prefix("test result: ") {
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
        let Self { passed, failed, ignored, skipped, .. } = self;
        let mut text = format!(
            "all tests: {} in {}\n{passed} passed, {failed} failed, {ignored} ignored",
            if *failed == 0 { "no failure" } else { "FAILURES" },
            ui::duration(start.elapsed())
        );
        if !skipped.is_empty() {
            text.push_str("\nwhat passed without being tested here, and why:");
        }
        for (why, count) in skipped {
            text.push_str(&format!("\n  {count} × {why}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_packages_are_tested_alone() {
        for (arguments, expected) in [
            (&[][..], false),
            (&["-p", "dit-weights"], true),
            (&["-pdit-weights", "--release"], true),
            (&["--package=dit-weights"], true),
            (&["--release", "--", "-p"], false),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert_eq!(names_packages(&arguments), expected, "{arguments:?}");
        }
        for (arguments, expected) in [
            (&[][..], &["--", "--show-output"][..]),
            (&["-p", "dit-weights"], &["--", "--show-output"]),
            (&["--", "name"], &["--show-output"]),
            (&["--", "--nocapture"], &[]),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert_eq!(to_harness(&arguments), expected, "{arguments:?}");
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

    /// Also where the output comes in pieces.
    #[test]
    fn what_passing_tests_print_is_read_and_not_shown() {
        let before = "running 2 tests\ntest a ... ok\ntest successes ... ok\n\n";
        let list = "successes:\n\n---- a stdout ----\nSKIPPED: no GPU\nmore\n\nsuccesses:\n    a\n    successes\n\n";
        let after = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n\n";
        let failed = "successes:\n\nSKIPPED: no GPU\n\nfailures:\n\n---- b stdout ----\nwhy\n";
        let (output, expected) = (
            [before, list, after, failed, "su"].concat(),
            [before, after, "failures:\n\n---- b stdout ----\nwhy\nsu"].concat(),
        );
        for size in [1, 7, 1000] {
            let mut tally = Tally::default();
            let mut shown = Vec::new();
            let pieces = output.as_bytes().chunks(size).map(|piece| Box::new(piece) as Box<dyn Read>);
            let pieces = pieces.reduce(|all, piece| Box::new(all.chain(piece))).unwrap();
            forward(pieces, &mut shown, &mut tally).unwrap();
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "pieces of {size}");
            assert_eq!((tally.passed, &tally.skipped), (2, &BTreeMap::from([("no GPU".to_owned(), 2)])));
        }
    }
}
