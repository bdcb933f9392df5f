//! libtorch from the official archive, for machines whose pip has none.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::VERSION;
use super::archive::Archive;
use super::cache::Slot;
use super::layout;
use super::platform::Variant;
use crate::ui;

/// Fills the slot's partial folder.
pub fn make(slot: &Slot, url: &str, variant: Variant) -> Result<()> {
    let zip = slot.downloads().join("libtorch.zip");
    if !zip.is_file() {
        let part = zip.with_extension("zip.part");
        // A download that was cut between its last byte and its renaming is whole.
        if Archive::open(&part).is_err() {
            download(url, &part)?;
        }
        fs::rename(&part, &zip).with_context(|| format!("{} cannot be renamed", part.display()))?;
    }
    layout::official(&zip, &slot.partial(), VERSION, variant)
}

/// Goes on where an earlier try ended.
fn download(url: &str, part: &Path) -> Result<()> {
    ui::say(format_args!("downloading {url}"));
    let terminal = std::io::stderr().is_terminal();
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--location", "--proto", "=https", "--retry", "3", "--continue-at", "-"]);
    curl.args(if terminal { ["--progress-bar"].as_slice() } else { ["--silent", "--show-error"].as_slice() });
    curl.arg("--output").arg(part).arg(url);
    let mut wget = Command::new("wget");
    wget.args(["--continue", "--tries=3"]).args((!terminal).then_some("--no-verbose"));
    wget.arg("--output-document").arg(part).arg(url);
    for mut command in [curl, wget] {
        match command.stdin(Stdio::null()).status() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => bail!(
                "{url} cannot be downloaded ({} ended with {status}); check the network and run this again, it goes on \
                 where it stopped",
                command.get_program().display()
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{} does not start", command.get_program().display()));
            }
        }
    }
    bail!("neither curl nor wget is installed, and one of them is needed to download {url}")
}
