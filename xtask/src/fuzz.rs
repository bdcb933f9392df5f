//! `cargo xtask fuzz`: libFuzzer over the parsers, on the stable toolchain.
//!
//! cargo-fuzz needs nightly only for its sanitizers. Coverage feedback is an LLVM pass that stable rustc runs too, and
//! the parsers are safe Rust, where panics (overflow checks are on) are what there is to find.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::ui;
use crate::workspace::Workspace;

/// Fuzz the parsers of untrusted files, for a while
///
/// Starts from the committed seeds in fuzz/seeds/TARGET and from fuzz/corpus/TARGET, which grows from run to run and is
/// not in git. A crash ends the run with an error and leaves its input in fuzz/artifacts/TARGET. Needs no libtorch,
/// and no nightly.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                          # every target, 60 seconds each
  cargo xtask fuzz --seconds 3600 pickle
  cargo xtask fuzz pickle --input fuzz/artifacts/pickle/crash-1234")]
pub struct Args {
    /// Only this target (a file of fuzz/fuzz_targets) [default: each]
    target: Option<String>,
    /// How long each target is fuzzed
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Run this one input instead, to see a crash again
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with = "seconds")]
    input: Option<PathBuf>,
}

/// What `cargo fuzz` passes too, but for the sanitizer.
const FLAGS: [&str; 10] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Copt-level=3",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let home = workspace.root().join("fuzz");
    let targets = targets(&home)?;
    let chosen: Vec<&String> = match &args.target {
        None => targets.iter().collect(),
        Some(name) => match targets.iter().find(|target| *target == name) {
            Some(target) => vec![target],
            None => bail!("there is no fuzz target `{name}`; there are: {}", targets.join(", ")),
        },
    };
    let binaries = build(workspace, &home)?;
    for target in chosen {
        let binary = binaries.join(target);
        match &args.input {
            Some(input) => replay(&binary, input)?,
            None => fuzz(&home, target, &binary, args.seconds)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of the files in `fuzz_targets`.
fn targets(home: &Path) -> Result<Vec<String>> {
    let folder = home.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    ensure!(!names.is_empty(), "{} has no targets", folder.display());
    names.sort();
    Ok(names)
}

/// Builds all targets and returns the folder that they are in.
fn build(workspace: &Workspace, home: &Path) -> Result<PathBuf> {
    let host = host(workspace)?;
    let folder = home.join("target");
    let status = workspace
        .cargo()
        .args(["build", "--release", "--bins", "--manifest-path"])
        .arg(home.join("Cargo.toml"))
        // A named target keeps the flags away from build scripts, which have no fuzzer to report coverage to.
        .args(["--target", &host, "--target-dir"])
        .arg(&folder)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .status()
        .context("cargo does not start")?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(folder.join(host).join("release"))
}

/// The triple that rustc builds for by itself.
fn host(workspace: &Workspace) -> Result<String> {
    let output = workspace.cargo().arg("-vV").output().context("cargo does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("cargo -vV names no host")?.to_owned())
}

fn fuzz(home: &Path, target: &str, binary: &Path, seconds: u32) -> Result<()> {
    let [corpus, artifacts, seeds] = ["corpus", "artifacts", "seeds"].map(|name| home.join(name).join(target));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    ui::say(format_args!("fuzzing {target} for {seconds} s"));
    let mut command = Command::new(binary);
    command.arg(&corpus).args(seeds.is_dir().then_some(&seeds));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // Inputs are a few kilobytes: one that needs this much memory or time is a defect too.
    command.args(["-rss_limit_mb=2048", "-timeout=60", "-print_final_stats=1", "-print_funcs=0", "-verbosity=0"]);
    let start = || format!("{} does not start", binary.display());
    let mut fuzzer = command.stderr(Stdio::piped()).spawn().with_context(start)?;
    if let Some(output) = fuzzer.stderr.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if is_news(&line) {
                ui::say(line);
            }
        }
    }
    let status = fuzzer.wait()?;
    ensure!(
        status.success(),
        "fuzzing {target} found a defect; its input is in {}: cargo xtask fuzz {target} --input FILE shows it again",
        artifacts.display()
    );
    Ok(())
}

/// Whether a line of libFuzzer's tells something: not its missing sanitizers, nor the dictionary it recommends.
fn is_news(line: &str) -> bool {
    let noise = ["WARNING: Failed to find function \"__sanitizer", "######", "\""];
    !noise.iter().any(|start| line.starts_with(start))
}

fn replay(binary: &Path, input: &Path) -> Result<()> {
    let status =
        Command::new(binary).arg(input).status().with_context(|| format!("{} does not start", binary.display()))?;
    ensure!(status.success(), "{} still fails", input.display());
    ui::say(format_args!("{} passes", input.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_is_never_taken_for_noise() {
        for line in [
            "thread '<unnamed>' panicked at crates/dit-weights/src/a.rs:1:1:",
            "==20944== ERROR: libFuzzer: timeout after 61 seconds",
            "SUMMARY: libFuzzer: deadly signal",
            "Test unit written to fuzz/artifacts/pickle/crash-1",
        ] {
            assert!(is_news(line), "{line}");
        }
        assert!(!is_news("\"PK\\005\\006\" # Uses: 1123"));
    }

    #[test]
    fn each_file_of_the_folder_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("fuzz_targets");
        fs::create_dir_all(&folder).unwrap();
        assert!(targets(dir.path()).is_err(), "none");
        for name in ["pickle.rs", "config.rs", "notes.md"] {
            fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(targets(dir.path()).unwrap(), ["config", "pickle"]);
    }
}
