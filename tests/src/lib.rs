//! Helpers shared by the parity and end-to-end tests. They panic with the reason: a test that cannot be set up has failed.

use std::{
    env,
    fs::File,
    io::BufWriter,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use dit_weights::{SafetensorsFile, to_tensor};
use tch::{Kind, Tensor};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// Whether the tests that take minutes and gigabytes are asked for (`cargo xtask test --slow`); says so if not.
pub fn slow_tests() -> bool {
    let asked = env::var_os("DIT_SLOW_TESTS").is_some_and(|value| !value.is_empty() && value != "0");
    if !asked {
        eprintln!("SKIPPED: takes minutes and gigabytes; run `cargo xtask test --slow`");
    }
    asked
}

/// A tensor of a safetensors file: integers as int64, the rest as fp32.
#[track_caller]
pub fn read_tensor(path: &Path, name: &str) -> Tensor {
    let file = SafetensorsFile::open(path).unwrap_or_else(|error| panic!("{error}"));
    let tensor = to_tensor(&file, name).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if tensor.is_floating_point() { tensor.to_kind(Kind::Float) } else { tensor.to_kind(Kind::Int64) }
}

/// ‖a − b‖ / ‖b‖ in f64.
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((a - &b).norm() / b.norm()).double_value(&[])
}

/// The built `dit-cli`, with the demo weights of this workspace.
pub fn dit_cli() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(build_dit_cli);
    let mut command = Command::new(binary);
    command.env("DIT_WEIGHTS_DIR", root().join("weights")).env_remove("RUST_LOG").env("RUST_BACKTRACE", "1");
    heed_signals(&mut command);
    command
}

/// Has the child begin with signals as they are by default. Tests that run in a shell's background inherit an ignored SIGINT, which
/// the binary respects.
fn heed_signals(command: &mut Command) {
    // SAFETY: signal(2) may be called between fork and exec, and nothing else is.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
}

/// Builds it in the profile of this test, so that nothing but the binary itself has to be compiled.
fn build_dit_cli() -> PathBuf {
    let test = env::current_exe().expect("a running test has a path"); // target/PROFILE/deps/TEST
    let folder = test.ancestors().nth(2).expect("tests run from target/PROFILE/deps").to_owned();
    let release = folder.ends_with("release");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "dit-cli", "--target-dir"]).arg(folder.parent().expect("target/PROFILE"));
    if release {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "dit-cli does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    folder.join("dit-cli")
}

/// A library that, loaded before a program, has libtorch compute on a GPU that is none (`stand_in_gpu/device.cpp`); says so where there
/// is none.
pub fn stand_in_gpu() -> Option<&'static Path> {
    let failed = option_env!("STAND_IN_GPU_FAILED");
    assert!(failed.is_none(), "the stand-in for a GPU does not compile: {}", failed.unwrap_or_default());
    let Some(library) = option_env!("STAND_IN_GPU") else {
        eprintln!("SKIPPED: no stand-in for a GPU; it takes Linux, and a libtorch without CUDA");
        return None;
    };
    if library.contains([' ', ':']) {
        eprintln!("SKIPPED: what is loaded before a program has no space and no colon in its path, as {library} has");
        return None;
    }
    Some(Path::new(library))
}

/// Writes an RGB picture, its pixels row by row.
pub fn write_png(path: &Path, width: u32, height: u32, pixels: &[u8]) {
    let file = BufWriter::new(File::create(path).expect("a file in a folder of the test's"));
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header is written");
    writer.write_image_data(pixels).expect("as many pixels as the header says");
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `dit-cli` with these arguments in `folder`.
pub fn run_in(folder: &Path, args: &[&str]) -> Ran {
    dit_cli().current_dir(folder).args(args).output().expect("dit-cli starts").into()
}

/// Runs `dit-cli`, which must succeed.
#[track_caller]
pub fn succeed_in(folder: &Path, args: &[&str]) -> Ran {
    let ran = run_in(folder, args);
    assert_eq!(ran.code, Some(0), "dit-cli {args:?}\n{}", ran.stderr);
    ran
}

/// Runs `dit-cli`, which must fail with one clear message that holds all of `expected`: no panic, no backtrace.
#[track_caller]
pub fn fail_in(folder: &Path, args: &[&str], expected: &[&str]) -> Ran {
    let ran = run_in(folder, args);
    assert!(matches!(ran.code, Some(1 | 2)), "dit-cli {args:?} ended with {:?}\n{}", ran.code, ran.stderr);
    for part in expected {
        assert!(ran.stderr.contains(part), "dit-cli {args:?}: no '{part}' in\n{}", ran.stderr);
    }
    for sign in ["panicked", "internal error", "stack backtrace", "frame #"] {
        assert!(!ran.stderr.contains(sign), "dit-cli {args:?} shows '{sign}':\n{}", ran.stderr);
    }
    ran
}
