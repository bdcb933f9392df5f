//! Tests of what only an Arm CPU runs, on another: built for it, and run by QEMU.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::libtorch::config_file::{quoted, run_path_flags, utf8};
use crate::libtorch::{self, Install, Platform};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const C_COMPILER: &str = "aarch64-linux-gnu-gcc";
const COMPILER: &str = "aarch64-linux-gnu-g++";
/// What Debian calls it, linked with the system's libraries or by itself.
const EMULATORS: [&str; 2] = ["qemu-aarch64", "qemu-aarch64-static"];
/// What it emulates, as it calls it and in words. Both without SVE, with which libtorch's kernels take much longer.
pub const CPUS: [(&str, &str); 2] =
    [("max,sve=off", "with matrix instructions for bf16 and int8"), ("neoverse-n1", "without matrix instructions")];
/// What a test that starts its own program again is to start it by.
const TEST_RUNNER: &str = "DIT_TEST_RUNNER";

/// What is tested unless packages are named: what has kernels of its own, and what they are made for. The rest would take hours.
pub const PACKAGES: [&str; 3] = ["dit-ops", "dit-model", "dit-vae"];
/// What builds and runs such programs here.
pub struct Emulation {
    emulator: &'static str,
    /// Where the C library of such programs is.
    root: PathBuf,
    libtorch: Install,
}

impl Emulation {
    /// Looks for the tools, and gets libtorch if need be.
    pub fn set_up() -> Result<Self> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!(
                "the emulator's way is for Linux x86-64; on an Arm machine `cargo xtask test` itself tests what that runs"
            );
        }
        let answers = |program: &str| {
            let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        };
        let emulator = EMULATORS.into_iter().find(|program| answers(program));
        let compilers = answers(C_COMPILER) && answers(COMPILER);
        let library =
            said(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET])).map(PathBuf::from);
        let mut missing = Vec::new();
        if emulator.is_none() {
            missing.push("QEMU: `apt install qemu-user-static`".to_owned());
        }
        if !compilers {
            missing.push("a C++ compiler for Arm: `apt install g++-aarch64-linux-gnu`".to_owned());
        }
        if !library.is_some_and(|library| library.is_dir()) {
            missing.push(format!("Rust's library for Arm: `rustup target add {TARGET}`"));
        }
        let Some(emulator) = emulator.filter(|_| missing.is_empty()) else {
            bail!("what is missing to build and run programs for Arm here:\n  {}", missing.join("\n  "));
        };
        let c_library =
            said(Command::new(C_COMPILER).arg("-print-file-name=libc.so.6")).context("the compiler does not answer")?;
        let root = Path::new(&c_library).canonicalize().ok();
        let root = root.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_owned);
        let root = root.with_context(|| format!("{C_COMPILER} has no C library: `apt install libc6-arm64-cross`"))?;
        let libtorch = libtorch::for_platform(Platform::LinuxAarch64)?;
        Ok(Self { emulator, root, libtorch })
    }

    /// Has a `cargo test` build for Arm, and run what it built by the emulator, as on that CPU.
    pub fn apply(&self, cargo: &mut Command, cpu: &str) -> Result<()> {
        let Self { emulator, root, libtorch } = self;
        let (root, libraries) = (utf8(root)?, utf8(libtorch.lib())?);
        let runner = [emulator, "-cpu", cpu, "-L", root].map(str::to_owned);
        // Cargo takes arrays from its configuration only; from the environment it would split at spaces.
        for (key, values) in [
            ("rustflags", run_path_flags(libraries).as_slice()),
            ("rustdocflags", run_path_flags(libraries).as_slice()),
            ("runner", &runner),
        ] {
            let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            cargo.arg("--config").arg(format!("target.{TARGET}.{key} = [{}]", values.join(", ")));
        }
        // Those would take the place of the flags above.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTDOCFLAGS", "CARGO_ENCODED_RUSTDOCFLAGS"] {
            cargo.env_remove(name);
        }
        // All of them, as what is not set may come from `.cargo/libtorch.toml`.
        for name in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_LIB"] {
            cargo.env(name, libtorch.root());
        }
        let of_target = |what: &str| format!("{what}_{}", TARGET.replace('-', "_"));
        let linker = format!("CARGO_TARGET_{}_LINKER", TARGET.replace('-', "_").to_uppercase());
        cargo
            .args(["--target", TARGET])
            .env_remove("LIBTORCH_USE_PYTORCH")
            .env(linker, COMPILER)
            .env(of_target("CC"), C_COMPILER)
            .env(of_target("CXX"), COMPILER)
            .env(TEST_RUNNER, runner.join("\n"));
        Ok(())
    }
}

/// The first line that a program writes.
fn said(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
}
