//! The peers' Python: an environment made for them in the cache folder, or one the user names.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use dit_files::Lock;

use crate::libtorch::{VERSION, cache::Cache};
use crate::ui;
use crate::workspace::Workspace;

/// An interpreter that has the peers, or why there is none.
pub struct Peers {
    python: Result<PathBuf, String>,
}

/// Written last: the environment is whole, and for these requirements.
const MARK: &str = "requirements-installed.txt";

impl Peers {
    pub fn not_needed() -> Self {
        Self { python: Err("not asked for".to_owned()) }
    }

    /// Makes the environment where it is missing or was made for other requirements. That nothing can be installed here is no
    /// error: we are then measured alone.
    pub fn find(workspace: &Workspace, given: Option<&Path>) -> Result<Self> {
        if let Some(python) = given {
            // Absolute, but not resolved: a virtual environment's interpreter is a link, which must stay one.
            let python = std::path::absolute(python).with_context(|| python.display().to_string())?;
            return Ok(Self { python: Ok(python) });
        }
        let requirements = workspace.root().join("bench/dit/requirements.txt");
        let wanted = fs::read_to_string(&requirements).with_context(|| requirements.display().to_string())?;
        let folder = Cache::find()?.dir().with_file_name("bench").join(format!("python-torch-{VERSION}"));
        let python = environment(&folder, &requirements, &wanted)
            .inspect_err(|reason| ui::say(format_args!("no Python peers: {reason}")));
        Ok(Self { python })
    }

    pub fn python(&self) -> Result<&Path, String> {
        self.python.as_deref().map_err(Clone::clone)
    }
}

fn environment(folder: &Path, requirements: &Path, wanted: &str) -> Result<PathBuf, String> {
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let whole = || fs::read_to_string(folder.join(MARK)).is_ok_and(|made| made == wanted) && python.exists();
    if whole() {
        return Ok(python);
    }
    let _lock = lock(folder)?;
    if whole() {
        return Ok(python); // another run made it meanwhile
    }
    let base = ["python3", "python"].into_iter().find(|name| is_recent(name));
    let base = base.ok_or("no python3 of version 3.10 or later answers; install one, or pass --python")?;
    ui::say(format_args!("making a Python environment for the peers in {} (3 GB to download)", folder.display()));
    // Half-made ones are cleared, which their downloads survive in pip's own cache.
    run(Command::new(base).args(["-m", "venv", "--clear"]).arg(folder), "a virtual environment cannot be made")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", "-r"]).arg(requirements);
    run(&mut pip, "pip cannot install the peers")?;
    fs::write(folder.join(MARK), wanted).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(python)
}

fn lock(folder: &Path) -> Result<Lock, String> {
    let path = folder.with_extension("lock");
    let lock = fs::create_dir_all(folder).and_then(|()| Lock::wait(&path));
    lock.map_err(|error| format!("{} cannot be locked: {error}", path.display()))
}

fn is_recent(python: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import sys, venv; sys.exit(sys.version_info < (3, 10))"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs it, shows what it complains of, and gives the last complaint if it fails.
fn run(command: &mut Command, failure: &str) -> Result<(), String> {
    let failed = |reason: String| format!("{failure}: {reason}");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let mut last = None;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
            ui::say(format_args!("  {line}"));
            last = Some(line);
        }
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(last.unwrap_or_else(|| status.to_string()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_environment_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("bin/python");
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        fs::write(&python, "").unwrap();
        fs::write(folder.path().join(MARK), "torch\n").unwrap();
        let found = environment(folder.path(), Path::new("unread"), "torch\n");
        assert_eq!(found, Ok(python));
    }

    #[test]
    fn a_failure_tells_the_last_complaint() {
        let complaint = run(Command::new("sh").args(["-c", "echo one >&2; echo no network >&2; exit 3"]), "pip");
        assert_eq!(complaint, Err("pip: no network".to_owned()));
        assert_eq!(run(Command::new("sh").args(["-c", "echo warning >&2"]), "pip"), Ok(()));
    }
}
