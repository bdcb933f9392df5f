//! `cargo xtask libtorch`: a libtorch where every later cargo command and every binary finds it.

mod archive;
pub mod cache;
mod compiler;
pub mod config_file;
mod elf;
mod install;
mod layout;
mod link;
mod official;
mod platform;
mod python;
mod wheels;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use dit_files::Lock;

use self::cache::{Cache, Slot};
use self::compiler::Compiler;
use self::config_file::Settings;
pub use self::install::Install;
pub use self::platform::Platform;
use self::platform::Variant;
use self::python::{Pip, PipError};
use crate::ui;
use crate::workspace::{self, Workspace};

/// The version that tch wants.
pub const VERSION: &str = "2.11.0";

/// Put libtorch 2.11.0 where every later cargo command finds it
///
/// Looks, in this order, at LIBTORCH and LIBTORCH_USE_PYTORCH, at what is set up here already and at the cache that
/// all clones share; else gets it with pip (CPU: 550 MB to download, 500 MB kept), or as the official archive. Then
/// writes .cargo/libtorch.toml, which is all that cargo needs: no environment variable has to be set.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask libtorch
  cargo xtask libtorch --cuda
  LIBTORCH=/opt/libtorch cargo xtask libtorch
  LIBTORCH_USE_PYTORCH=1 cargo xtask libtorch     # the torch of this Python")]
pub struct Args {
    /// The CUDA build, with NVIDIA's libraries (2.5 GB to download, 3.6 GB kept)
    #[arg(long)]
    cuda: bool,
    /// Get it anew, even if it is there
    #[arg(long)]
    force: bool,
    /// Begin even where the disk seems too small: what is needed is an upper bound, and some file systems misreport what is free
    #[arg(long)]
    ignore_disk_space: bool,
}

/// What happens where the disk seems too small.
#[derive(Clone, Copy)]
pub enum ShortOfRoom {
    Refuse,
    Warn,
}

/// What a command needs of libtorch.
#[derive(Clone, Copy)]
pub struct Wanted {
    variant: Option<Variant>,
    anew: bool,
    short_of_room: ShortOfRoom,
}

impl Wanted {
    /// Whatever is set up; the CPU build if nothing is.
    pub fn any() -> Self {
        Self { variant: None, anew: false, short_of_room: ShortOfRoom::Refuse }
    }

    pub fn cuda() -> Self {
        Self { variant: Some(Variant::Cuda), ..Self::any() }
    }
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let variant = args.cuda.then_some(Variant::Cuda);
    let short_of_room = if args.ignore_disk_space { ShortOfRoom::Warn } else { ShortOfRoom::Refuse };
    ensure(workspace, Wanted { variant, anew: args.force, short_of_room })?;
    ui::say("cargo build, test, run, clippy and doc find it by .cargo/libtorch.toml. Next: cargo xtask demo");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that libtorch is there and that `.cargo/libtorch.toml` points to it.
pub fn ensure(workspace: &Workspace, wanted: Wanted) -> Result<()> {
    // Before minutes of downloading.
    Compiler::find().require_cxx17()?;
    let cache = Cache::find()?;
    let found = find(workspace, &cache, wanted)?;
    let link = if found.install.has_cuda() && cfg!(target_os = "linux") {
        Some(link::folder(cache.dir(), found.install.lib())?)
    } else {
        found.lib
    };
    let target_flags = config_file::users_target_flags(workspace.root());
    let settings = Settings {
        root: found.install.root().to_owned(),
        include: found.include,
        link,
        run_path: found.install.lib().to_owned(),
        target_table: target_flags.is_some(),
    };
    settings.write(&workspace.libtorch_toml())?;
    ui::say(&found.install);
    if workspace::users_rustflags().is_some() {
        ui::say(format_args!(
            "note: RUSTFLAGS is set, and cargo then ignores the flags in .cargo/libtorch.toml: binaries that you build \
             yourself need `-C link-arg=-Wl,-rpath,{}` in it too",
            settings.run_path.display()
        ));
    }
    Ok(())
}

/// A libtorch, and the folders that go into `LIBTORCH_INCLUDE` and `LIBTORCH_LIB` if they are not its own.
struct Found {
    install: Install,
    include: Option<PathBuf>,
    lib: Option<PathBuf>,
}

impl From<Install> for Found {
    fn from(install: Install) -> Self {
        Self { install, include: None, lib: None }
    }
}

fn find(workspace: &Workspace, cache: &Cache, wanted: Wanted) -> Result<Found> {
    if let Some(own) = workspace.users_libtorch() {
        let root = &own.root;
        let (include, lib) = (own.include.as_ref().unwrap_or(root), own.lib.as_ref().unwrap_or(root));
        let install = Install::check_split(root, include, lib).and_then(|install| install.serving(wanted.variant));
        let install = install.map_err(|fault| {
            anyhow!("LIBTORCH={} cannot be used: {fault}; unset LIBTORCH to get one that fits", root.display())
        })?;
        return Ok(Found { install, include: own.include, lib: own.lib });
    }
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let package = python::torch_package()?;
        let install = Install::check(&package).and_then(|install| install.serving(wanted.variant));
        let install = install.map_err(|fault| {
            anyhow!(
                "LIBTORCH_USE_PYTORCH is set, but {} cannot be used: {fault}; unset it to get one that fits",
                package.display()
            )
        })?;
        return Ok(install.into());
    }
    if !wanted.anew {
        if let Some(present) = config_file::configured(&workspace.libtorch_toml()) {
            let include = present.include.as_ref().unwrap_or(&present.root);
            let lib = present.lib.parent().unwrap_or(&present.root);
            let checked = Install::check_split(&present.root, include, lib);
            match checked.and_then(|install| install.serving(wanted.variant)) {
                Ok(install) => {
                    let lib = (lib != present.root).then(|| lib.to_owned());
                    return Ok(Found { install, include: present.include, lib });
                }
                Err(fault) => ui::say(format_args!("{} serves no more: {fault}", present.root.display())),
            }
        }
        if let Some(install) = cached(cache, wanted.variant) {
            return Ok(install.into());
        }
    }
    make(cache, wanted).map(Found::from)
}

/// The first finished slot that serves.
fn cached(cache: &Cache, variant: Option<Variant>) -> Option<Install> {
    let variants = variant.map_or(vec![Variant::Cpu, Variant::Cuda], |variant| vec![variant]);
    variants
        .into_iter()
        .find_map(|variant| Install::check(&cache.slot(variant).root()).ok()?.serving(Some(variant)).ok())
}

/// Gets it: the user's pip, else the official archive.
fn make(cache: &Cache, wanted: Wanted) -> Result<Install> {
    let platform = Platform::current()?;
    let variant = wanted.variant.unwrap_or(Variant::Cpu);
    if platform == Platform::MacArm64 && variant == Variant::Cuda {
        bail!("there is no CUDA on macOS; leave --cuda out");
    }
    platform.require_c_library()?;
    make_in(&cache.slot(variant), platform, variant, wanted)
}

/// The CPU build for another platform than this one, got with pip if it is not in the cache. Nothing is told to use it.
pub fn for_platform(platform: Platform) -> Result<Install> {
    let slot = Cache::find()?.slot_for(platform);
    Install::check(&slot.root()).or_else(|_| make_in(&slot, platform, Variant::Cpu, Wanted::any()))
}

fn make_in(slot: &Slot, platform: Platform, variant: Variant, wanted: Wanted) -> Result<Install> {
    let lock = slot.lock()?;
    // Another process may have made it while we waited.
    let present = Install::check(&slot.root()).and_then(|install| install.serving(Some(variant)));
    if let Some(install) = present.ok().filter(|_| !wanted.anew) {
        return Ok(install);
    }
    slot.begin(&lock)?;
    if let Err(error) = fill(slot, &lock, platform, variant, wanted.short_of_room) {
        if !archive::is_damage(&error) {
            return Err(error);
        }
        slot.discard_downloads(&lock)?;
        return Err(error.context("a download was damaged, and is removed now: run this again"));
    }
    Install::check(&slot.partial_root())
        .and_then(|install| install.serving(Some(variant)))
        .map_err(|fault| anyhow!("what was downloaded cannot be used: {fault}"))?;
    slot.commit(&lock)?;
    Install::check(&slot.root()).map_err(|fault| anyhow!("what was just set up cannot be used: {fault}"))
}

fn fill(slot: &Slot, lock: &Lock, platform: Platform, variant: Variant, short: ShortOfRoom) -> Result<()> {
    let sizes = platform.sizes(variant);
    let from_pip = match Pip::find() {
        Some(pip) => {
            slot.require_space(sizes.by_pip(slot.downloaded(&wheels::COMPLETE)), short)?;
            wheels::make(slot, platform, variant, &pip)
        }
        None => Err(PipError::NotThere.into()),
    };
    let Err(error) = from_pip else { return Ok(()) };
    let Some(why) = error.downcast_ref::<PipError>() else { return Err(error) };
    let url = archive_instead(platform, variant, why)?;
    ui::say(format_args!("{why}; taking the official archive instead"));
    slot.begin(lock)?;
    slot.require_space(sizes.by_archive(slot.downloaded(&official::KEPT)), short)?;
    official::make(slot, &url, variant).with_context(|| why.to_string())
}

/// The official archive's address, where it can help after pip brought nothing.
fn archive_instead(platform: Platform, variant: Variant, why: &PipError) -> Result<String> {
    match (why, platform.official_zip(variant)) {
        (PipError::NoNetwork | PipError::DiskFull, _) => bail!("{why}"),
        (PipError::NotThere, None) => {
            bail!(
                "{why}; install it, e.g. with `apt install python3-pip` or `python3 -m ensurepip`, and run this again"
            )
        }
        (PipError::NoWheel | PipError::TooOld | PipError::Other(_), None) => bail!("{why}"),
        (PipError::NotThere | PipError::NoWheel | PipError::TooOld | PipError::Other(_), Some(url)) => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_takes_over_where_there_is_one_and_it_can_help() {
        let other = || PipError::Other("THESE PACKAGES DO NOT MATCH THE HASHES".to_owned());
        for why in [PipError::NotThere, PipError::NoWheel, PipError::TooOld, other()] {
            assert!(archive_instead(Platform::LinuxX86_64, Variant::Cpu, &why).is_ok(), "{why}");
        }
        let check = |platform, why: PipError, expected: &str| {
            let error = archive_instead(platform, Variant::Cpu, &why).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Platform::LinuxX86_64, PipError::NoNetwork, "check the network");
        check(Platform::LinuxX86_64, PipError::DiskFull, "XDG_CACHE_HOME");
        check(Platform::LinuxAarch64, PipError::NotThere, "`apt install python3-pip` or `python3 -m ensurepip`");
        check(Platform::LinuxAarch64, PipError::TooOld, "--upgrade pip");
        check(Platform::LinuxAarch64, other(), "DO NOT MATCH");
    }
}
