//! A libtorch that is on the disk: what it must have, and which version it is.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fmt;
use std::path::{Path, PathBuf};

use super::VERSION;
use super::platform::Variant;

/// A folder with the headers and libraries that tch needs, of the version that it needs.
#[derive(Clone, Debug)]
pub struct Install {
    root: PathBuf,
    lib: PathBuf,
    version: Option<String>,
    cuda: bool,
}

/// Why a folder is no such libtorch.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Missing(PathBuf),
    /// As after a power cut.
    Empty(PathBuf),
    Version(String),
    NoCuda,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "{} is missing", path.display()),
            Self::Empty(path) => write!(f, "{} is empty", path.display()),
            Self::Version(found) => write!(f, "it is version {found}, and {VERSION} is needed"),
            Self::NoCuda => f.write_str("it has no libtorch_cuda, and --cuda was asked for"),
        }
    }
}

/// File name of a shared library on this machine.
fn library(name: &str) -> String {
    format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")
}

const HEADER: &str = "include/torch/csrc/api/include/torch/torch.h";

impl Install {
    /// Checks a folder that has `include/` and `lib/`.
    pub fn check(root: &Path) -> Result<Self, Fault> {
        Self::check_split(root, root, root)
    }

    /// The same where headers and libraries may lie below different folders, as torch-sys allows.
    pub fn check_split(root: &Path, include: &Path, lib: &Path) -> Result<Self, Fault> {
        let lib = lib.join("lib");
        let header = include.join(HEADER);
        let libraries = ["torch_cpu", "c10", "torch"].map(|name| lib.join(library(name)));
        for path in std::iter::once(header).chain(libraries) {
            match path.metadata() {
                Ok(file) if file.is_file() && file.len() == 0 => return Err(Fault::Empty(path)),
                Ok(file) if file.is_file() => {}
                _ => return Err(Fault::Missing(path)),
            }
        }
        let version = version(root, include);
        match &version {
            Some(found) if found != VERSION && std::env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_none() => {
                Err(Fault::Version(found.clone()))
            }
            _ => {
                let cuda = lib.join(library("torch_cuda")).is_file();
                Ok(Self { root: root.to_owned(), lib, version, cuda })
            }
        }
    }

    /// Refuses a build without CUDA where CUDA is wanted. A CUDA build serves both.
    pub fn serving(self, variant: Option<Variant>) -> Result<Self, Fault> {
        if variant == Some(Variant::Cuda) && !self.cuda { Err(Fault::NoCuda) } else { Ok(self) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the libraries are.
    pub fn lib(&self) -> &Path {
        &self.lib
    }

    pub fn has_cuda(&self) -> bool {
        self.cuda
    }
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.as_deref().unwrap_or("of unknown version");
        let variant = if self.cuda { Variant::Cuda } else { Variant::Cpu };
        write!(f, "libtorch {version} ({}) in {}", variant.name(), self.root.display())
    }
}

/// Looks where the official archive, a Python package and the headers say it, in this order.
fn version(root: &Path, include: &Path) -> Option<String> {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let from_archive = || read(root.join("build-version")).map(|text| public(&text).to_owned());
    let from_python = || read(root.join("version.py")).and_then(|text| python_version(&text));
    let from_header = || {
        ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"]
            .iter()
            .find_map(|path| header_version(&read(include.join(path))?))
    };
    from_archive().or_else(from_python).or_else(from_header)
}

/// `2.11.0+cu130` is a `2.11.0`.
fn public(version: &str) -> &str {
    let version = version.trim();
    version.split_once('+').map_or(version, |(public, _)| public)
}

/// `__version__ = '2.11.0+cu130'` in `torch/version.py`.
fn python_version(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("__version__")?.trim_start().strip_prefix('='))?;
    let version = public(value.trim().trim_matches(['\'', '"']));
    (!version.is_empty()).then(|| version.to_owned())
}

/// The three `#define TORCH_VERSION_…`.
fn header_version(text: &str) -> Option<String> {
    let number = |name: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name)).then(|| words.next())?
        })
    };
    let (major, minor, patch) =
        (number("TORCH_VERSION_MAJOR")?, number("TORCH_VERSION_MINOR")?, number("TORCH_VERSION_PATCH")?);
    Some(format!("{major}.{minor}.{patch}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with everything that `check` looks at.
    fn complete(root: &Path, version: &str) {
        let libraries = ["torch_cpu", "c10", "torch"].map(|name| Path::new("lib").join(library(name)));
        for file in libraries.into_iter().chain([HEADER.into()]).map(|file| root.join(file)) {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "x").unwrap();
        }
        std::fs::write(root.join("build-version"), version).unwrap();
    }

    #[test]
    fn a_complete_folder_is_taken_and_anything_less_names_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        complete(dir.path(), "2.11.0+cpu\n");
        let install = Install::check(dir.path()).unwrap();
        assert!(install.to_string().starts_with("libtorch 2.11.0 (cpu) in "), "{install}");
        assert_eq!(install.clone().serving(Some(Variant::Cuda)).unwrap_err(), Fault::NoCuda);
        assert!(install.serving(Some(Variant::Cpu)).is_ok());

        for file in
            [PathBuf::from(HEADER), Path::new("lib").join(library("c10")), Path::new("lib").join(library("torch"))]
        {
            let dir = tempfile::tempdir().unwrap();
            complete(dir.path(), "2.11.0");
            let file = dir.path().join(file);
            std::fs::write(&file, "").unwrap();
            assert_eq!(Install::check(dir.path()).unwrap_err(), Fault::Empty(file.clone()));
            std::fs::remove_file(&file).unwrap();
            assert_eq!(Install::check(dir.path()).unwrap_err(), Fault::Missing(file));
        }
    }

    #[test]
    fn another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        complete(dir.path(), "2.10.1+cpu");
        let fault = Install::check(dir.path()).unwrap_err();
        assert_eq!(fault.to_string(), "it is version 2.10.1, and 2.11.0 is needed");
    }

    #[test]
    fn a_cuda_build_serves_everything() {
        let dir = tempfile::tempdir().unwrap();
        complete(dir.path(), "2.11.0+cu130");
        std::fs::write(dir.path().join("lib").join(library("torch_cuda")), "x").unwrap();
        let install = Install::check(dir.path()).unwrap();
        assert!(install.has_cuda());
        for variant in [None, Some(Variant::Cpu), Some(Variant::Cuda)] {
            assert!(install.clone().serving(variant).is_ok(), "{variant:?}");
        }
    }

    #[test]
    fn versions_are_read_wherever_they_are_written() {
        let python =
            "from typing import Optional\n\n__all__ = ['__version__']\n__version__ = '2.11.0+cu130'\ndebug = False\n";
        assert_eq!(python_version(python).as_deref(), Some("2.11.0"));
        assert_eq!(python_version("__version__ = ''"), None);
        assert_eq!(python_version("version = '2.11.0'"), None);

        let header = "/// Indicates the major version\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION \\\n  \"2.11.0\"\n";
        assert_eq!(header_version(header).as_deref(), Some("2.11.0"));
        assert_eq!(header_version("#define TORCH_VERSION_MAJOR 2\n"), None);
        assert_eq!(public(" 2.11.0+cpu\n"), "2.11.0");
    }
}
