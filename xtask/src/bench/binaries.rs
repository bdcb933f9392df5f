//! Release builds of what is measured, as cargo itself names them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::ui;
use crate::workspace::Workspace;

pub struct Binaries {
    /// Speaks the protocol for us.
    pub engine: PathBuf,
    /// None where nothing measures it.
    pub dit_cli: Option<PathBuf>,
    /// Speaks it for candle; or why there is none.
    pub candle: Result<PathBuf, String>,
}

impl Binaries {
    pub fn build(workspace: &Workspace, wanted: Wanted) -> Result<Self> {
        let ours = |package: &str, binary: &str| {
            if !wanted.anew {
                return built(workspace.root(), binary);
            }
            let mut cargo = workspace.cargo();
            cargo.args(["build", "--release", "-p", package]);
            let named = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == binary);
            executables(cargo)?.into_iter().find(named).with_context(|| format!("cargo built no {binary}"))
        };
        let candle = || {
            let folder = workspace.root().join("bench/candle");
            if wanted.anew { candle(workspace) } else { built(&folder, CANDLE).map_err(|error| error.to_string()) }
        };
        Ok(Self {
            engine: ours("dit-bench", "dit-bench-engine")?,
            dit_cli: if wanted.dit_cli { Some(ours("dit-cli", "dit-cli")?) } else { None },
            candle: if wanted.candle { candle() } else { Err("not asked for".to_owned()) },
        })
    }
}

/// What is built beside our engine.
pub struct Wanted {
    pub dit_cli: bool,
    pub candle: bool,
    /// Whether what is there already may be out of date.
    pub anew: bool,
}

const CANDLE: &str = "dit-bench-candle";

/// An earlier build of the workspace in `root`.
fn built(root: &Path, binary: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
    let path = target.join("release").join(binary).with_extension(std::env::consts::EXE_EXTENSION);
    ensure!(path.is_file(), "{} is not built yet; leave out --no-build", path.display());
    Ok(path)
}

/// A workspace of its own: nobody else needs candle, which takes minutes to build. For this processor, as candle advises.
fn candle(workspace: &Workspace) -> Result<PathBuf, String> {
    let mut cargo = workspace.cargo();
    cargo.current_dir(workspace.root().join("bench/candle")).args(["build", "--release", "--locked"]);
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "-Ctarget-cpu=native");
    let built = executables(cargo).inspect_err(|error| ui::say(format_args!("candle is left out: {error:#}")));
    let built = built.map_err(|error| format!("candle could not be built: {error:#}"))?;
    built.into_iter().next().ok_or_else(|| "cargo built no candle engine".to_owned())
}

/// Runs a build and gives the executables it made.
fn executables(mut cargo: Command) -> Result<Vec<PathBuf>> {
    cargo.args(["--message-format", "json-render-diagnostics"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = cargo.spawn().context("cargo does not start")?;
    let output = running.stdout.take().context("cargo's output is closed")?;
    let mut built = Vec::new();
    for line in BufReader::new(output).lines() {
        built.extend(executable(&line?));
    }
    let status = running.wait()?;
    ensure!(status.success(), "the build failed; what cargo says is above");
    Ok(built)
}

fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    Some(Path::new(message.get("executable")?.as_str()?).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_built_is_said() {
        let root = tempfile::tempdir().unwrap();
        let error = built(root.path(), "dit-cli").unwrap_err().to_string();
        assert!(error.contains("--no-build"), "{error}");
    }

    #[test]
    fn executables_are_found_in_cargos_messages() {
        for (message, expected) in [
            (r#"{"reason":"compiler-artifact","executable":"/t/release/dit-cli"}"#, Some("/t/release/dit-cli")),
            (r#"{"reason":"compiler-artifact","executable":null}"#, None),
            (r#"{"reason":"build-finished","success":true}"#, None),
            ("no json", None),
        ] {
            assert_eq!(executable(message), expected.map(PathBuf::from), "{message}");
        }
    }
}
