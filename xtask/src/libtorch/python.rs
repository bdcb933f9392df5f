//! The user's Python: its pip, and the PyTorch it may have.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::platform::Platform;
use crate::ui;

/// A pip that works, as a command's first words.
pub struct Pip {
    words: Vec<OsString>,
}

/// Why pip brought nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum PipError {
    NotThere,
    /// The index has no such package for this platform.
    NoWheel,
    NoNetwork,
    DiskFull,
    TooOld,
    Other(String),
}

impl std::fmt::Display for PipError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotThere => f.write_str("pip is missing (neither python3 -m pip nor pip3 nor pip answers)"),
            Self::NoWheel => f.write_str("pip's package index has no such wheel for this platform"),
            Self::NoNetwork => f.write_str(
                "pip cannot reach its package index; check the network (`python3 -m pip download --no-deps torch` shows \
                 the details) and run this again: what is complete is kept",
            ),
            Self::DiskFull => f.write_str("the disk filled up; make room, or set XDG_CACHE_HOME to a larger disk"),
            Self::TooOld => f.write_str("pip is too old; update it with `python3 -m pip install --upgrade pip`"),
            Self::Other(line) => write!(f, "pip failed: {line}"),
        }
    }
}

impl std::error::Error for PipError {}

/// Wheels hold the same libraries for every Python version: ask for one that surely exists, so that the
/// version of the Python that runs pip does not matter.
const PYTHON_VERSION: &str = "3.12";

impl Pip {
    /// The first that answers.
    pub fn find() -> Option<Self> {
        let candidates: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];
        candidates
            .into_iter()
            .find(|words| answers(words))
            .map(|words| Self { words: words.iter().map(OsString::from).collect() })
    }

    /// Downloads wheels into `into`; temporary files go to `scratch`, which is on the same disk.
    pub fn download(&self, request: &Request<'_>, into: &Path, scratch: &Path) -> Result<(), PipError> {
        let other = |error: std::io::Error| PipError::Other(error.to_string());
        let mut command = self.command().ok_or_else(|| PipError::Other("it went away".to_owned()))?;
        command.args(["download", "--disable-pip-version-check", "--only-binary=:all:"]);
        command.args(["--implementation", "cp", "--python-version", PYTHON_VERSION]);
        for tag in request.platform.wheel_tags() {
            command.args(["--platform", &tag]);
        }
        if request.dependencies == Dependencies::Leave {
            command.arg("--no-deps");
        }
        command.arg("--dest").arg(into).args(request.requirements);
        // pip's own bar goes to stdout: keep ours free for what we print ourselves.
        command.env("TMPDIR", scratch);
        // The user's configuration may say otherwise, for what pip installs; it installs nothing here, and nobody answers.
        command.env("PIP_REQUIRE_VIRTUALENV", "0").env("PIP_NO_INPUT", "1");
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(other)?;
        let mut complaints = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                ui::say(format_args!("pip: {line}"));
                complaints.push(line);
            }
        }
        let status = child.wait().map_err(other)?;
        if status.success() { Ok(()) } else { Err(diagnose(&complaints, &status.to_string())) }
    }

    fn command(&self) -> Option<Command> {
        let (program, arguments) = self.words.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments);
        Some(command)
    }
}

/// What to download.
pub struct Request<'a> {
    pub requirements: &'a [String],
    pub dependencies: Dependencies,
    pub platform: Platform,
}

/// Whether the wheels that a wheel asks for come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependencies {
    Bring,
    Leave,
}

fn answers(words: &[&str]) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    let mut command = Command::new(program);
    command.args(arguments).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What pip's complaints come down to.
fn diagnose(complaints: &[String], status: &str) -> PipError {
    let says = |phrases: &[&str]| complaints.iter().any(|line| phrases.iter().any(|phrase| line.contains(phrase)));
    if says(&["No space left on device", "Disk quota exceeded"]) {
        PipError::DiskFull
    } else if says(&["no such option", "No such option"]) {
        PipError::TooOld
    } else if says(&[
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "Max retries exceeded",
        "Connection timed out",
        "ConnectTimeoutError",
        "NewConnectionError",
        "NameResolutionError",
        "ProxyError",
        "Read timed out",
        "Connection broken",
    ]) {
        PipError::NoNetwork
    } else if says(&["No matching distribution found", "Could not find a version"]) {
        PipError::NoWheel
    } else {
        let last = complaints.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty());
        PipError::Other(last.unwrap_or(status).trim_start_matches("ERROR: ").to_owned())
    }
}

/// Where the Python on the path keeps its `torch` package. Python only looks for it; importing it takes seconds.
pub fn torch_package() -> Result<PathBuf> {
    // The interpreter that torch-sys would take.
    let python = if std::env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let script =
        "import importlib.util as u\ns = u.find_spec('torch')\nprint(s.submodule_search_locations[0] if s else '')";
    let output = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("LIBTORCH_USE_PYTORCH is set, but `{python}` does not start"))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || path.is_empty() {
        bail!(
            "LIBTORCH_USE_PYTORCH is set, but `{python}` has no torch; activate the environment that has it, or unset it"
        );
    }
    std::path::absolute(&path).with_context(|| format!("{path} cannot be made absolute"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stderr: &str, expected: PipError) {
        let lines: Vec<String> = stderr.lines().map(str::to_owned).collect();
        assert_eq!(diagnose(&lines, "exit status: 1"), expected);
    }

    #[test]
    fn pips_complaints_become_one_line() {
        check(
            "ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: none)\nERROR: No matching distribution found for torch==2.11.0",
            PipError::NoWheel,
        );
        check(
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError('Failed to establish a new connection: [Errno -2] Name or service not known')': /simple/torch/\nERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: none)\nERROR: No matching distribution found for torch==2.11.0",
            PipError::NoNetwork,
        );
        check(
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            PipError::DiskFull,
        );
        check("Usage: pip download\n\nno such option: --platform", PipError::TooOld);
        check(
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n\n",
            PipError::Other("THESE PACKAGES DO NOT MATCH THE HASHES".into()),
        );
        check("", PipError::Other("exit status: 1".into()));
    }
}
