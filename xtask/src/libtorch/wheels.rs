//! libtorch from the wheels of the user's own pip set-up.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::VERSION;
use super::cache::Slot;
use super::layout::{self, Metadata};
use super::platform::{Platform, Variant};
use super::python::{Dependencies, Pip, PipError, Request};
use crate::ui;

/// Where complete downloads are kept, below the slot's downloads.
pub const COMPLETE: [&str; 2] = ["torch", "nvidia"];

/// Fills the slot's partial folder.
pub fn make(slot: &Slot, platform: Platform, variant: Variant, pip: &Pip) -> Result<()> {
    let another = Platform::current().is_ok_and(|current| current != platform);
    let of = if another { format!(" for {}", platform.name()) } else { String::new() };
    ui::say(format_args!("downloading libtorch {VERSION} ({}){of} with pip", variant.name()));
    let torch = Request { requirements: &[format!("torch=={VERSION}")], dependencies: Dependencies::Leave, platform };
    let [torch_wheel, nvidia_wheels] = COMPLETE;
    let wheels = step(slot, pip, torch_wheel, &torch)?;
    let wheel = wheels.first().context("pip said that it downloaded torch, but did not")?;
    let metadata = Metadata::read(wheel)?;
    let nvidia = |requirements: &[String]| {
        let request = Request { requirements, dependencies: Dependencies::Bring, platform };
        Ok(step(slot, pip, nvidia_wheels, &request)?)
    };
    match (platform, variant) {
        (Platform::MacArm64, _) => layout::macos(wheel, &metadata, &slot.partial()),
        (Platform::LinuxX86_64 | Platform::LinuxAarch64, Variant::Cpu) => {
            layout::linux_cpu(wheel, &metadata, &slot.partial(), nvidia)
        }
        (Platform::LinuxX86_64 | Platform::LinuxAarch64, Variant::Cuda) => {
            layout::linux_cuda(wheel, &metadata, &nvidia(&metadata.nvidia())?, &slot.partial())
        }
    }
}

/// One call of pip. Its folder gets its final name when pip has ended well: a folder of that name is complete,
/// and a later run takes it as it is.
fn step(slot: &Slot, pip: &Pip, name: &str, request: &Request<'_>) -> Result<Vec<PathBuf>, PipError> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => PipError::DiskFull,
        _ => PipError::Other(format!("{}: {error}", slot.downloads().display())),
    };
    let done = slot.downloads().join(name);
    if !done.is_dir() {
        // Names of this process's own: a pip whose parent was killed may still be writing into the last ones.
        let [incoming, scratch] =
            ["incoming", "scratch"].map(|what| slot.downloads().join(format!("{what}-{}", std::process::id())));
        for folder in [&incoming, &scratch] {
            fs::create_dir_all(folder).map_err(io)?;
        }
        pip.download(request, &incoming, &scratch)?;
        if wheels_in(&incoming).map_err(io)?.is_empty() {
            return Err(PipError::Other("it ended well, but brought no wheel".to_owned()));
        }
        fs::rename(&incoming, &done).map_err(io)?;
        fs::remove_dir_all(&scratch).map_err(io)?;
    }
    wheels_in(&done).map_err(io)
}

/// The wheels of a folder, sorted.
fn wheels_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut wheels = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    wheels.retain(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheels.sort();
    Ok(wheels)
}
