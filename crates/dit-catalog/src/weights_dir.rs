use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The environment variable that names the weights folder.
pub const WEIGHTS_DIR_VARIABLE: &str = "DIT_WEIGHTS_DIR";
/// The manifest's name within a weights folder.
pub const MANIFEST: &str = "manifest.json";
/// The weights folder's name within a repository.
const FOLDER: &str = "weights";

/// The folder in which checkpoints lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsDir {
    path: PathBuf,
    origin: Origin,
}

/// How the folder was chosen: a command that is suggested must repeat a choice made by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Given,
    Found,
}

impl WeightsDir {
    /// The folder that the user named (`--dir`). It need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), origin: Origin::Given }
    }

    /// Finds the folder when none was named:
    ///
    /// 1. the environment variable [`WEIGHTS_DIR_VARIABLE`], unless it is empty;
    /// 2. `weights/` in the current folder or in the nearest one above it that holds `weights/manifest.json`;
    /// 3. the same from the folder of the running program, so that a binary in `target/release` finds its repository
    ///    from wherever it is called.
    ///
    /// # Errors
    /// [`Error::NoWeightsDir`] if there is none; [`Error::CurrentDir`] if the current folder is gone and the program's place
    /// gives no answer either.
    pub fn discover() -> Result<Self> {
        let current = env::current_dir();
        let program = env::current_exe().ok();
        let starts: Vec<_> = current.as_deref().ok().into_iter().chain(program.as_deref()).collect();
        match Self::find(env::var_os(WEIGHTS_DIR_VARIABLE), &starts) {
            Some(found) => Ok(found),
            None => Err(current.err().map_or(Error::NoWeightsDir, Error::CurrentDir)),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, if it was named and must be named again in a command that uses it.
    pub(crate) fn explicit(&self) -> Option<&Path> {
        (self.origin == Origin::Given).then_some(self.path.as_path())
    }

    fn find(variable: Option<OsString>, starts: &[&Path]) -> Option<Self> {
        let named = variable.filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let above = || {
            let folders = starts.iter().flat_map(|start| start.ancestors());
            folders.map(|folder| folder.join(FOLDER)).find(|folder| folder.join(MANIFEST).is_file())
        };
        // The variable is not repeated in commands: it is set for them, too.
        named.or_else(above).map(|path| Self { path, origin: Origin::Found })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with two repositories, `a` and `a/in/b`, and a plain folder `c`; `starts` and `expected` are relative to it.
    #[track_caller]
    fn check(variable: Option<&str>, starts: &[&str], expected: Option<&str>) {
        let root = tempfile::tempdir().unwrap();
        for repository in ["a", "a/in/b"] {
            let weights = root.path().join(repository).join("weights");
            fs::create_dir_all(&weights).unwrap();
            fs::write(weights.join("manifest.json"), "").unwrap();
        }
        fs::create_dir_all(root.path().join("a/in/b/target/release")).unwrap();
        fs::create_dir_all(root.path().join("c/weights")).unwrap(); // without a manifest
        let starts: Vec<_> = starts.iter().map(|start| root.path().join(start)).collect();
        let starts: Vec<_> = starts.iter().map(PathBuf::as_path).collect();
        let found = WeightsDir::find(variable.map(OsString::from), &starts);
        let found = found.map(|found| found.path().strip_prefix(root.path()).unwrap_or(found.path()).to_path_buf());
        assert_eq!(found.as_deref(), expected.map(Path::new));
    }

    #[test]
    fn the_folder_is_found_from_below() {
        check(None, &["a"], Some("a/weights"));
        check(None, &["a/in"], Some("a/weights"));
        check(None, &["a/in/b"], Some("a/in/b/weights"));
        check(None, &["c", "a/in/b/target/release/dit-cli"], Some("a/in/b/weights"));
        check(None, &["a", "a/in/b/target/release/dit-cli"], Some("a/weights"));
        check(None, &["c"], None);
        check(None, &[], None);
    }

    #[test]
    fn the_variable_comes_first() {
        check(Some("/elsewhere"), &["a"], Some("/elsewhere"));
        check(Some("/elsewhere"), &[], Some("/elsewhere"));
        check(Some(""), &["a"], Some("a/weights"));
    }
}
