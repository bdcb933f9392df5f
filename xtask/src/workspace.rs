//! The folder that all commands work in, and the cargo that they call.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::libtorch::config_file;

/// The workspace's root folder.
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The parent of this package, as the cargo that runs it says; else as the cargo that built it said.
    pub fn find() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().context("xtask is not inside a workspace")?.to_owned();
        ensure!(root.join("Cargo.toml").is_file(), "{} has no Cargo.toml", root.display());
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file, not in git, that tells cargo where libtorch is.
    pub fn libtorch_toml(&self) -> PathBuf {
        self.root.join(".cargo/libtorch.toml")
    }

    /// `LIBTORCH` and its companions where the user set them. `cargo run` puts the values of its configuration
    /// into our environment; those are not the user's.
    pub fn users_libtorch(&self) -> Option<UsersLibtorch> {
        let configured = config_file::configured(&self.libtorch_toml());
        let configured = configured.as_ref();
        let variable = |name: &str, from_config: Option<&PathBuf>| {
            let value = PathBuf::from(std::env::var_os(name).filter(|value| !value.is_empty())?);
            // cargo and what it runs work in other folders than the one that this is relative to.
            let value = std::path::absolute(&value).unwrap_or(value);
            (Some(&value) != from_config && !value.ends_with(".cargo/no-libtorch")).then_some(value)
        };
        Some(UsersLibtorch {
            root: variable("LIBTORCH", configured.map(|present| &present.root))?,
            include: variable("LIBTORCH_INCLUDE", configured.and_then(|present| present.include.as_ref())),
            lib: variable("LIBTORCH_LIB", configured.and_then(|present| present.link.as_ref())),
        })
    }

    /// The same cargo that runs us, in the root, with the environment of a plain shell: values that came from
    /// `.cargo/` are taken out, so that cargo reads them afresh and rebuilds nothing.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        let own = self.users_libtorch();
        for (name, path) in [
            ("LIBTORCH", own.as_ref().map(|own| &own.root)),
            ("LIBTORCH_INCLUDE", own.as_ref().and_then(|own| own.include.as_ref())),
            ("LIBTORCH_LIB", own.as_ref().and_then(|own| own.lib.as_ref())),
        ] {
            match path {
                Some(path) => command.env(name, path),
                None => command.env_remove(name),
            };
        }
        // Either variable replaces the flags of the configuration, the run path among them: hand that on.
        if let (Some(flags), Some(configured)) = (users_rustflags(), config_file::configured(&self.libtorch_toml())) {
            command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", encoded(flags, &configured.flags));
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }
}

/// A libtorch that the user's environment names, by absolute paths.
pub struct UsersLibtorch {
    /// `LIBTORCH`.
    pub root: PathBuf,
    /// `LIBTORCH_INCLUDE`, whose `include/` is used instead of the root's.
    pub include: Option<PathBuf>,
    /// `LIBTORCH_LIB`, whose `lib/` is used instead of the root's.
    pub lib: Option<PathBuf>,
}

/// The flags in the environment, if any, one by one.
pub fn users_rustflags() -> Option<Vec<String>> {
    if let Ok(flags) = std::env::var("CARGO_ENCODED_RUSTFLAGS") {
        return Some(flags.split('\x1f').map(str::to_owned).collect());
    }
    let flags = std::env::var("RUSTFLAGS").ok()?;
    Some(flags.split_whitespace().map(str::to_owned).collect())
}

/// As `CARGO_ENCODED_RUSTFLAGS` wants them: a separator that no path holds.
fn encoded(flags: Vec<String>, more: &[String]) -> String {
    let flags: Vec<String> = flags.into_iter().filter(|flag| !flag.is_empty()).chain(more.iter().cloned()).collect();
    flags.join("\x1f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_path_joins_the_users_flags() {
        let run_path = ["-C".to_owned(), "link-arg=-Wl,-rpath,/a b/lib".to_owned()];
        assert_eq!(
            encoded(vec!["-Ctarget-cpu=native".into()], &run_path),
            "-Ctarget-cpu=native\x1f-C\x1flink-arg=-Wl,-rpath,/a b/lib"
        );
        assert_eq!(encoded(vec![String::new()], &run_path), "-C\x1flink-arg=-Wl,-rpath,/a b/lib");
    }
}
