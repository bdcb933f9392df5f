//! From wheels to a folder with `include/` and `lib/`.
//!
//! torch's wheel for Linux is a CUDA build, whatever it is used for. Its `libtorch_cpu.so` stands alone but for two
//! small CUDA libraries; its `libtorch.so` is an empty library that needs everything. So a CPU libtorch is what
//! `libtorch_cpu.so` needs, found by asking the libraries themselves, and a linker script in place of `libtorch.so`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::{Archive, Planned, total};
use super::elf;
use super::platform::Variant;
use crate::ui;

/// What the metadata of torch's wheel says.
pub struct Metadata {
    /// Local label included: `2.11.0+cpu`.
    pub version: String,
    requires: Vec<String>,
}

impl Metadata {
    pub fn read(wheel: &Path) -> Result<Self> {
        Self::parse(&Archive::open(wheel)?.text(".dist-info/METADATA")?)
    }

    fn parse(text: &str) -> Result<Self> {
        let fields = || text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": "));
        let version = fields().find(|(name, _)| *name == "Version").context("torch's wheel names no version")?.1;
        let requires = fields().filter(|(name, value)| *name == "Requires-Dist" && !value.contains("extra =="));
        // The markers after `;` say "on Linux": this is only asked there.
        let requires = requires.map(|(_, value)| value.split(';').next().unwrap_or(value).trim().to_owned()).collect();
        Ok(Self { version: version.trim().to_owned(), requires })
    }

    /// The requirements that hold NVIDIA's libraries.
    pub fn nvidia(&self) -> Vec<String> {
        let wanted =
            |requirement: &&String| requirement.starts_with("nvidia-") || requirement.starts_with("cuda-toolkit");
        self.requires.iter().filter(wanted).cloned().collect()
    }

    /// The requirements that hold these libraries, and no more.
    pub fn holding(&self, libraries: &BTreeSet<String>) -> Result<Vec<String>> {
        let parts: Vec<&(&str, &str, &str)> = libraries
            .iter()
            .map(|library| {
                let part = CUDA_PARTS.iter().find(|(prefix, ..)| library.starts_with(prefix));
                part.with_context(|| format!("libtorch_cpu needs {library}, which no known package holds"))
            })
            .collect::<Result<_>>()?;
        // Since CUDA 13, one package names the exact versions of all parts.
        if let Some(toolkit) = self.requires.iter().find(|requirement| requirement.starts_with("cuda-toolkit[")) {
            let version = toolkit.split_once(']').context("cuda-toolkit's requirement cannot be read")?.1;
            let extras: Vec<&str> = parts.iter().map(|(_, extra, _)| *extra).collect();
            return Ok(vec![format!("cuda-toolkit[{}]{version}", extras.join(","))]);
        }
        parts
            .iter()
            .map(|(_, _, package)| {
                let found = self.requires.iter().find(|requirement| requirement.starts_with(package)).cloned();
                found.with_context(|| format!("torch's wheel requires no {package}, but its libraries do"))
            })
            .collect()
    }
}

/// Libraries of CUDA that `libtorch_cpu.so` needs: their extra of `cuda-toolkit`, and their own package.
const CUDA_PARTS: [(&str, &str, &str); 2] =
    [("libcudart.so", "cudart", "nvidia-cuda-runtime"), ("libcupti.so", "cupti", "nvidia-cuda-cupti")];

/// The libraries that tch never uses: Python's side of torch.
const PYTHON_SIDE: [&str; 3] = ["libtorch_python.", "libshm.", "libtorch_global_deps."];

/// A CPU libtorch on Linux. `fetch` brings the wheels of further requirements.
pub fn linux_cpu(
    wheel: &Path,
    metadata: &Metadata,
    folder: &Path,
    fetch: impl FnOnce(&[String]) -> Result<Vec<PathBuf>>,
) -> Result<()> {
    let mut torch = Archive::open(wheel)?;
    let headers = torch.plan(headers)?;
    let lib = folder.join("lib");
    let bar = ui::byte_bar("unpacking headers and libraries", total(&headers));
    torch.extract(&headers, folder, &bar)?;

    // All that libtorch_cpu.so needs, directly or not.
    let mut in_wheel: BTreeMap<String, Planned> = BTreeMap::new();
    for planned in torch.plan(|name| in_folder(name, "torch/lib/"))? {
        in_wheel.insert(planned.to().display().to_string(), planned);
    }
    let mut queue = VecDeque::from(["libtorch_cpu.so".to_owned(), "libc10.so".to_owned()]);
    let mut absent = BTreeSet::new();
    while let Some(name) = queue.pop_front() {
        let Some(planned) = in_wheel.remove(&name) else { continue };
        bar.inc_length(planned.bytes());
        torch.extract(std::slice::from_ref(&planned), &lib, &bar)?;
        for needed in elf::needed(&lib.join(&name))? {
            if in_wheel.contains_key(&needed) {
                queue.push_back(needed);
            } else if is_cuda(&needed) {
                absent.insert(needed);
            }
        }
    }
    bar.finish_and_clear();

    if !absent.is_empty() {
        for wheel in fetch(&metadata.holding(&absent)?)? {
            let mut archive = Archive::open(&wheel)?;
            let found = archive.plan(|name| {
                let file = name.rsplit('/').next()?;
                absent.contains(file).then(|| file.into())
            })?;
            archive.extract(&found, &lib, &indicatif::ProgressBar::hidden())?;
        }
        if let Some(library) = absent.iter().find(|library| !lib.join(library).is_file()) {
            bail!("libtorch_cpu.so needs {library}, and the wheel that should hold it does not");
        }
    }
    fs::write(lib.join("libtorch.so"), "INPUT(-ltorch_cpu -lc10)\n")?;
    finish(folder, &metadata.version, Variant::Cpu)
}

/// libtorch with CUDA: torch's libraries below `torch/`, NVIDIA's below `nvidia/`, side by side as in Python's
/// `site-packages`, because the libraries look for each other along such paths (`$ORIGIN/../../nvidia/…`).
pub fn linux_cuda(wheel: &Path, metadata: &Metadata, nvidia: &[PathBuf], folder: &Path) -> Result<()> {
    let mut parts = Vec::new();
    let mut torch = Archive::open(wheel)?;
    let planned = torch.plan(|name| Some(Path::new("torch").join(headers(name).or_else(|| libraries(name))?)))?;
    parts.push((torch, planned));
    for wheel in nvidia {
        let mut archive = Archive::open(wheel)?;
        let planned = archive.plan(|name| {
            let (folders, file) = name.rsplit_once('/')?;
            let library = folders.starts_with("nvidia/") && folders.ends_with("/lib") && file.contains(".so");
            library.then(|| name.into())
        })?;
        parts.push((archive, planned));
    }
    let bar = ui::byte_bar("unpacking headers and libraries", parts.iter().map(|(_, planned)| total(planned)).sum());
    for (archive, planned) in &mut parts {
        archive.extract(planned, folder, &bar)?;
    }
    bar.finish_and_clear();
    finish(&folder.join("torch"), &metadata.version, Variant::Cuda)
}

/// libtorch on macOS, whose wheel has no CUDA and stands alone.
pub fn macos(wheel: &Path, metadata: &Metadata, folder: &Path) -> Result<()> {
    let mut torch = Archive::open(wheel)?;
    let planned = torch.plan(|name| headers(name).or_else(|| libraries(name)))?;
    let bar = ui::byte_bar("unpacking headers and libraries", total(&planned));
    torch.extract(&planned, folder, &bar)?;
    bar.finish_and_clear();
    finish(folder, &metadata.version, Variant::Cpu)
}

/// The official archive: a folder `libtorch/` with everything in it.
pub fn official(zip: &Path, folder: &Path, version: &str, variant: Variant) -> Result<()> {
    let mut archive = Archive::open(zip)?;
    let planned = archive.plan(|name| Some(name.strip_prefix("libtorch/")?.into()))?;
    let bar = ui::byte_bar("unpacking libtorch", total(&planned));
    archive.extract(&planned, folder, &bar)?;
    bar.finish_and_clear();
    finish(folder, version, variant)
}

/// The last touches, the same for all: a name for the linker for the OpenMP library that came along, and the
/// version, without which torch-sys checks none.
fn finish(folder: &Path, version: &str, variant: Variant) -> Result<()> {
    let lib = folder.join("lib");
    let link = lib.join("libgomp.so");
    if !link.exists() {
        for entry in fs::read_dir(&lib).with_context(|| format!("{} cannot be read", lib.display()))? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            if text.starts_with("libgomp") && text.contains(".so") {
                std::os::unix::fs::symlink(&name, &link)?;
                break;
            }
        }
    }
    let label = if version.contains('+') { String::new() } else { format!("+{}", variant.name()) };
    fs::write(folder.join("build-version"), format!("{version}{label}\n"))?;
    Ok(())
}

/// `torch/include/x` → `include/x`.
fn headers(name: &str) -> Option<PathBuf> {
    name.starts_with("torch/include/").then(|| name.strip_prefix("torch/").map(PathBuf::from))?
}

/// `torch/lib/libx.so` → `lib/libx.so`, but for Python's side.
fn libraries(name: &str) -> Option<PathBuf> {
    let file = in_folder(name, "torch/lib/")?;
    let text = file.to_string_lossy();
    let library = text.contains(".so") || text.ends_with(".dylib");
    let wanted = library && !PYTHON_SIDE.iter().any(|prefix| text.starts_with(prefix));
    wanted.then(|| Path::new("lib").join(&file))
}

/// The file's name, if it lies in this folder and not below it.
fn in_folder(name: &str, folder: &str) -> Option<PathBuf> {
    name.strip_prefix(folder).filter(|file| !file.is_empty() && !file.contains('/')).map(PathBuf::from)
}

/// A library of NVIDIA's, which no system has by itself.
fn is_cuda(library: &str) -> bool {
    ["libcu", "libnv", "libnccl"].iter().any(|prefix| library.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA13: &str = "\
Metadata-Version: 2.4
Name: torch
Version: 2.11.0
Requires-Dist: filelock
Requires-Dist: cuda-toolkit[cublas,cudart,cupti,nvtx]==13.0.2; platform_system == \"Linux\"
Requires-Dist: nvidia-cudnn-cu13==9.19.0.56; platform_system == \"Linux\"
Requires-Dist: triton==3.6.0; platform_system == \"Linux\"
Requires-Dist: nvidia-made-up; extra == \"x\"

Requires-Dist: nvidia-in-the-description
";
    const CUDA12: &str = "\
Version: 2.11.0+cu126
Requires-Dist: nvidia-cuda-runtime-cu12==12.6.77; platform_system == \"Linux\"
Requires-Dist: nvidia-cuda-cupti-cu12==12.6.80; platform_system == \"Linux\"
";

    fn names(libraries: &[&str]) -> BTreeSet<String> {
        libraries.iter().map(|name| name.to_string()).collect()
    }

    #[track_caller]
    fn check_holding(metadata: &str, libraries: &[&str], expected: &[&str]) {
        assert_eq!(Metadata::parse(metadata).unwrap().holding(&names(libraries)).unwrap(), expected);
    }

    #[test]
    fn the_two_cuda_libraries_are_asked_for_by_the_wheels_own_versions() {
        check_holding(CUDA13, &["libcudart.so.13", "libcupti.so.13"], &["cuda-toolkit[cudart,cupti]==13.0.2"]);
        check_holding(CUDA13, &["libcupti.so.13"], &["cuda-toolkit[cupti]==13.0.2"]);
        check_holding(CUDA12, &["libcudart.so.12"], &["nvidia-cuda-runtime-cu12==12.6.77"]);
        let unknown = Metadata::parse(CUDA13).unwrap().holding(&names(&["libcublas.so.13"])).unwrap_err();
        assert!(unknown.to_string().contains("libcublas.so.13"), "{unknown}");
    }

    #[test]
    fn cuda_brings_nvidias_packages_and_nothing_of_pythons() {
        let metadata = Metadata::parse(CUDA13).unwrap();
        assert_eq!(
            metadata.nvidia(),
            ["cuda-toolkit[cublas,cudart,cupti,nvtx]==13.0.2", "nvidia-cudnn-cu13==9.19.0.56"]
        );
        assert_eq!(metadata.version, "2.11.0");
        assert_eq!(Metadata::parse(CUDA12).unwrap().version, "2.11.0+cu126");
        assert!(Metadata::parse("Name: torch\n").is_err());
    }

    #[test]
    fn where_the_files_of_a_wheel_go() {
        for (name, expected) in [
            ("torch/include/torch/script.h", Some("include/torch/script.h")),
            ("torch/lib/libtorch_cpu.so", Some("lib/libtorch_cpu.so")),
            ("torch/lib/libgomp.so.1", Some("lib/libgomp.so.1")),
            ("torch/lib/libomp.dylib", Some("lib/libomp.dylib")),
            ("torch/lib/libtorch_python.so", None),
            ("torch/lib/libshm.dylib", None),
            ("torch/lib/libshm/alloc_info.h", None),
            ("torch/nn/functional.py", None),
            ("torch-2.11.0.dist-info/METADATA", None),
        ] {
            assert_eq!(headers(name).or_else(|| libraries(name)), expected.map(PathBuf::from), "{name}");
        }
    }
}
