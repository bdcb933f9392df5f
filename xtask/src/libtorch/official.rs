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

/// What of it is kept, whole or begun, below the slot's downloads.
pub const KEPT: [&str; 2] = ["libtorch.zip", "libtorch.zip.part"];

/// Fills the slot's partial folder.
pub fn make(slot: &Slot, url: &str, variant: Variant) -> Result<()> {
    let [zip, part] = KEPT.map(|name| slot.downloads().join(name));
    if !zip.is_file() {
        fetch(url, &part)?;
        fs::rename(&part, &zip).with_context(|| format!("{} cannot be renamed", part.display()))?;
    }
    layout::official(&zip, &slot.partial(), VERSION, variant)
}

/// Makes `part` the archive, going on where an earlier try ended.
fn fetch(url: &str, part: &Path) -> Result<()> {
    let whole = |part: &Path| Archive::open(part).is_ok();
    // A download that was cut between its last byte and its renaming is whole.
    if whole(part) {
        return Ok(());
    }
    if part.exists() {
        if matches!(download(url, part)?, Download::Ended) && whole(part) {
            return Ok(());
        }
        ui::say("what an earlier try had left of it is damaged; downloading it from the beginning");
        fs::remove_file(part).with_context(|| format!("{} cannot be removed", part.display()))?;
    }
    match download(url, part)? {
        Download::Ended => Ok(()),
        Download::NothingMore => bail!("{url} cannot be downloaded: the server has no such range; run this again"),
    }
}

/// How a download that did not fail ended.
enum Download {
    Ended,
    /// The server has nothing after what is there already.
    NothingMore,
}

fn download(url: &str, part: &Path) -> Result<Download> {
    ui::say(format_args!("downloading {url}"));
    let terminal = std::io::stderr().is_terminal();
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--location", "--proto", "=https", "--retry", "3", "--continue-at", "-"]);
    curl.args(if terminal { ["--progress-bar"].as_slice() } else { ["--silent", "--show-error"].as_slice() });
    curl.args(["--write-out", "%{http_code}", "--output"]).arg(part).arg(url);
    // wget takes a full-length file for the whole one, and says that all is well.
    let mut wget = Command::new("wget");
    wget.args(["--continue", "--tries=3"]).args((!terminal).then_some("--no-verbose"));
    wget.arg("--output-document").arg(part).arg(url);
    for mut command in [curl, wget] {
        match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
            Ok(output) if output.status.success() => return Ok(Download::Ended),
            Ok(output) if output.stdout.ends_with(b"416") || output.status.code() == Some(CURL_RANGE_ERROR) => {
                return Ok(Download::NothingMore);
            }
            Ok(output) => bail!(
                "{url} cannot be downloaded ({} ended with {}); check the network and run this again, it goes on where it \
                 stopped",
                command.get_program().display(),
                output.status
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{} does not start", command.get_program().display()));
            }
        }
    }
    bail!("neither curl nor wget is installed, and one of them is needed to download {url}")
}

/// "The server doesn't support or accept range requests."
const CURL_RANGE_ERROR: i32 = 33;
