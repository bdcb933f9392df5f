//! How a recipe names a file: by its full path, as it is to be repeated from other folders, with the user's own folder as `~`, as
//! pictures are handed on and need not tell whose they were.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;
use dit_sample::Source;
use dit_weights::sha256_of;

/// A recipe's name of what is called `name` here: by the catalogue, or by a full path.
pub fn name_of(name: &str) -> String {
    name_below(home().as_deref(), name)
}

/// The recipe's name and the hash of the file at `path`.
pub fn source_of(path: &Path) -> Result<Source> {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(Source { name: name_of(&full.display().to_string()), sha256: sha256_of(&[path])? })
}

/// What a recipe's `name` means here. The catalogue's names, and paths that are not below `~`, stay as they are.
pub fn expand(name: &str) -> String {
    expand_below(home().as_deref(), name)
}

fn home() -> Option<PathBuf> {
    let home = PathBuf::from(env::var_os("HOME")?).canonicalize().ok()?;
    home.parent().is_some().then_some(home)
}

fn name_below(home: Option<&Path>, name: &str) -> String {
    match home.and_then(|home| Path::new(name).strip_prefix(home).ok()) {
        Some(rest) => format!("~/{}", rest.display()),
        None => name.to_owned(),
    }
}

fn expand_below(home: Option<&Path>, name: &str) -> String {
    let below = name.strip_prefix("~/").zip(home);
    below.and_then(|(rest, home)| home.join(rest).to_str().map(str::to_owned)).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(home: Option<&str>, path: &str, name: &str) {
        let home = home.map(Path::new);
        assert_eq!(name_below(home, path), name, "{path}");
        assert_eq!(expand_below(home, name), path, "{name}");
    }

    #[test]
    fn a_name_says_nothing_of_the_folder_that_is_somebodys_own() {
        check(Some("/home/ada"), "/home/ada/runs/dit.safetensors", "~/runs/dit.safetensors");
        check(Some("/home/ada"), "/home/adam/dit.safetensors", "/home/adam/dit.safetensors");
        check(Some("/home/ada"), "/data/~/dit.safetensors", "/data/~/dit.safetensors");
        check(None, "/home/ada/dit.safetensors", "/home/ada/dit.safetensors");
    }

    #[test]
    fn a_name_that_is_no_path_stays() {
        for name in ["dit-fashion-demo", "~", "~ada/dit.safetensors"] {
            assert_eq!(expand_below(Some(Path::new("/home/ada")), name), name);
            assert_eq!(name_below(Some(Path::new("/home/ada")), name), name);
        }
    }
}
