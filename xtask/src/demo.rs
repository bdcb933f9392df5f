//! `cargo xtask demo`: from a fresh clone to a picture.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::libtorch::{self, Wanted};
use crate::ui::{self, Stages};
use crate::workspace::Workspace;

/// Set up libtorch, build the release binary and sample a picture
///
/// Needs no download but libtorch: the demo's weights are in the repository. The picture is written to
/// sample.png in the workspace's root.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask demo")]
pub struct Args {
    /// Use the CUDA build of libtorch (see `cargo xtask libtorch --help`)
    #[arg(long)]
    cuda: bool,
}

/// Where the picture goes, below the root.
const PICTURE: &str = "sample.png";
/// The committed checkpoint, as `weights/manifest.json` names it.
const CHECKPOINT: &str = "dit-fashion-demo";

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let mut stages = Stages::new();
    let wanted = if args.cuda { Wanted::cuda() } else { Wanted::any() };
    stages.run("libtorch", || libtorch::ensure(workspace, wanted))?;

    ui::say("building dit-cli (the first time takes minutes, most of them for libtorch's bindings)");
    let binary = stages.run("build", || build(workspace))?;

    let picture = workspace.root().join(PICTURE);
    stages.run("sample", || {
        let status = Command::new(&binary)
            .current_dir(workspace.root())
            .args([
                "sample",
                "--ckpt",
                CHECKPOINT,
                "--class",
                "0-9",
                "--num-samples",
                "4",
                "--steps",
                "50",
                "--out",
                PICTURE,
            ])
            .status()
            .with_context(|| format!("{} does not start", binary.display()))?;
        ensure!(status.success(), "dit-cli sample failed ({status})");
        ensure!(picture.is_file(), "dit-cli sample ended without writing {}", picture.display());
        Ok(())
    })?;

    let shown = shown(workspace, &binary);
    ui::say(format_args!(
        "
The picture: {}
Time:        {}

Next:
  {shown} sample --class 7 --num-samples 16 --seed 1    # other pictures
  {shown} sample --help                                 # everything it can do
  cargo xtask fetch-weights                             # the published DiT-XL/2
  cargo xtask test                                      # all tests",
        picture.display(),
        stages.summary(),
    ));
    Ok(ExitCode::SUCCESS)
}

/// Builds the release binary; cargo itself tells where it put it, whatever the target folder.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace
        .cargo()
        .args(["build", "--release", "-p", "dit-cli", "--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo does not start")?;
    let output = cargo.stdout.take().context("cargo's output is closed")?;
    let mut binary = None;
    for line in BufReader::new(output).lines() {
        binary = executable(&line?).or(binary);
    }
    let status = cargo.wait()?;
    ensure!(status.success(), "the build failed; what cargo says is above");
    match binary {
        Some(path) => Ok(path),
        None => bail!("cargo built no dit-cli"),
    }
}

/// The path in cargo's message about the binary `dit-cli`.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let ours = target.get("name")? == "dit-cli" && target.get("kind")?.as_array()?.iter().any(|kind| kind == "bin");
    if ours { message.get("executable")?.as_str().map(PathBuf::from) } else { None }
}

/// The binary as one would type it from the root.
fn shown(workspace: &Workspace, binary: &std::path::Path) -> String {
    binary.strip_prefix(workspace.root()).unwrap_or(binary).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_binarys_message_names_it() {
        let line = |kind: &str, name: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/t/{name}"}}"#
            )
        };
        assert_eq!(executable(&line("bin", "dit-cli")), Some("/t/dit-cli".into()));
        assert_eq!(executable(&line("example", "dit-cli")), None);
        assert_eq!(executable(&line("bin", "other")), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("no json"), None);
    }
}
