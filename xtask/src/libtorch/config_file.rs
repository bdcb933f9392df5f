//! `.cargo/libtorch.toml`: what tells every later cargo command, and every binary, where libtorch is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::Value;

/// What goes into the file.
#[derive(Debug)]
pub struct Settings {
    /// `LIBTORCH`.
    pub root: PathBuf,
    /// `LIBTORCH_INCLUDE`, where headers are elsewhere.
    pub include: Option<PathBuf>,
    /// `LIBTORCH_LIB`, where the linker is to look elsewhere than the loader.
    pub link: Option<PathBuf>,
    /// Where a running binary finds the libraries.
    pub run_path: PathBuf,
    /// Cargo takes `rustflags` from one table only, and the user's own configuration has a `target` table.
    pub target_table: bool,
}

/// What the file says at present.
#[derive(Debug, PartialEq, Eq)]
pub struct Configured {
    /// `LIBTORCH`.
    pub root: PathBuf,
    /// `LIBTORCH_INCLUDE`.
    pub include: Option<PathBuf>,
    /// `LIBTORCH_LIB`.
    pub link: Option<PathBuf>,
    /// Where binaries find the libraries.
    pub lib: PathBuf,
    /// The flags that say so.
    pub flags: Vec<String>,
}

impl Settings {
    /// The file's text.
    pub fn to_toml(&self) -> Result<String> {
        let mut text = String::from(
            "# Written by `cargo xtask libtorch`, which may be run again at any time. Not in git.\n[env]\n",
        );
        let variables = [
            ("LIBTORCH", Some(&self.root)),
            ("LIBTORCH_INCLUDE", self.include.as_ref()),
            ("LIBTORCH_LIB", self.link.as_ref()),
        ];
        for (name, path) in variables {
            if let Some(path) = path {
                text.push_str(&format!("{name} = {{ value = {} }}\n", quoted(utf8(path)?)));
            }
        }
        let flags: Vec<String> = run_path_flags(utf8(&self.run_path)?).iter().map(|flag| quoted(flag)).collect();
        let flags = flags.join(", ");
        text.push_str(&format!("\n[build]\nrustflags = [{flags}]\nrustdocflags = [{flags}]\n"));
        if self.target_table {
            text.push_str(&format!("\n[target.'cfg(all())']\nrustflags = [{flags}]\n"));
        }
        Ok(text)
    }

    /// Writes the file, whole or not at all, unless it says the same already.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = self.to_toml()?;
        if std::fs::read_to_string(file).is_ok_and(|present| present == text) {
            return Ok(());
        }
        Ok(dit_files::write_atomically(file, text.as_bytes())?)
    }
}

/// Reads the file back; `None` if it is not there or was never written whole.
pub fn configured(file: &Path) -> Option<Configured> {
    let table: toml::Table = std::fs::read_to_string(file).ok()?.parse().ok()?;
    let variable = |name: &str| Some(PathBuf::from(table.get("env")?.get(name)?.get("value")?.as_str()?));
    let flags = table.get("build")?.get("rustflags")?.as_array()?;
    let flags: Vec<String> = flags.iter().map(|flag| flag.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    let path = flags.last()?.strip_prefix("link-arg=")?;
    let lib = PathBuf::from(path.strip_prefix("-Wl,-rpath,").unwrap_or(path));
    Some(Configured {
        root: variable("LIBTORCH")?,
        include: variable("LIBTORCH_INCLUDE"),
        link: variable("LIBTORCH_LIB"),
        lib,
        flags,
    })
}

/// The user's own `target.….rustflags`, if there are any, named by where they are: cargo then ignores
/// `build.rustflags` of every file.
pub fn users_target_flags(workspace: &Path) -> Option<String> {
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let variable = variables.into_iter().find(|name| name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS"));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let folders = workspace.ancestors().skip(1).map(|dir| dir.join(".cargo")).chain(home);
    let mut files = folders.flat_map(|dir| [dir.join("config.toml"), dir.join("config")]);
    variable.or_else(|| {
        let file = files.find(|file| std::fs::read_to_string(file).is_ok_and(|text| has_target_flags(&text)))?;
        Some(file.display().to_string())
    })
}

fn has_target_flags(text: &str) -> bool {
    let Ok(table) = text.parse::<toml::Table>() else { return false };
    let targets = table.get("target").and_then(Value::as_table);
    targets.is_some_and(|targets| targets.values().any(|target| target.get("rustflags").is_some()))
}

/// `-Wl,` splits at commas; a path with one goes through `-Xlinker`.
pub fn run_path_flags(path: &str) -> Vec<String> {
    let arguments = if path.contains(',') {
        ["-Xlinker", "-rpath", "-Xlinker", path].map(|word| format!("link-arg={word}")).to_vec()
    } else {
        vec![format!("link-arg=-Wl,-rpath,{path}")]
    };
    arguments.into_iter().flat_map(|argument| ["-C".to_owned(), argument]).collect()
}

pub fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8, and cargo's configuration must be", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(root: &str) -> Settings {
        let root = PathBuf::from(root);
        Settings { run_path: root.join("lib"), root, include: None, link: None, target_table: false }
    }

    #[test]
    fn the_plain_file() {
        let expected = r#"# Written by `cargo xtask libtorch`, which may be run again at any time. Not in git.
[env]
LIBTORCH = { value = "/c/2.11.0-cpu" }

[build]
rustflags = ["-C", "link-arg=-Wl,-rpath,/c/2.11.0-cpu/lib"]
rustdocflags = ["-C", "link-arg=-Wl,-rpath,/c/2.11.0-cpu/lib"]
"#;
        assert_eq!(settings("/c/2.11.0-cpu").to_toml().unwrap(), expected);
    }

    #[test]
    fn everything_optional_is_written_where_it_is_needed() {
        let text = Settings {
            include: Some("/inc".into()),
            link: Some("/link".into()),
            target_table: true,
            ..settings("/own")
        }
        .to_toml()
        .unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["env"]["LIBTORCH_INCLUDE"]["value"].as_str(), Some("/inc"));
        assert_eq!(table["env"]["LIBTORCH_LIB"]["value"].as_str(), Some("/link"));
        assert_eq!(table["target"]["cfg(all())"]["rustflags"], table["build"]["rustflags"]);
    }

    #[test]
    fn odd_paths_survive() {
        for root in ["/with space/l", "/quo\"te/l", "/back\\slash", "/new\nline", "/comma,/l", "/straße"] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("libtorch.toml");
            settings(root).write(&file).unwrap();
            let read = configured(&file).unwrap();
            assert_eq!(read.root, Path::new(root));
            assert_eq!(read.lib, Path::new(root).join("lib"));
            assert!(!read.flags.iter().any(|flag| flag.contains("-Wl") && root.contains(',')), "{read:?}");
        }
    }

    #[test]
    fn an_equal_file_is_left_alone_and_nothing_else_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libtorch.toml");
        settings("/a").write(&file).unwrap();
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        settings("/a").write(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written);
        settings("/b").write(&file).unwrap();
        assert_eq!(configured(&file).unwrap().root, Path::new("/b"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_half_written_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libtorch.toml");
        assert_eq!(configured(&file), None);
        for text in ["", "[env]\nLIBTORCH = { value = \"/a\" }\n", "[env\n"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(configured(&file), None, "{text:?}");
        }
    }

    #[test]
    fn target_flags_of_the_user_are_seen() {
        assert!(has_target_flags("[target.x86_64-unknown-linux-gnu]\nrustflags = ['-Clink-arg=-fuse-ld=mold']"));
        assert!(has_target_flags("[target.'cfg(unix)']\nrustflags = '-g'"));
        assert!(!has_target_flags("[target.x86_64-unknown-linux-gnu]\nlinker = 'clang'"));
        assert!(!has_target_flags("[build]\nrustflags = []"));
        assert!(!has_target_flags("not toml ["));
    }
}
