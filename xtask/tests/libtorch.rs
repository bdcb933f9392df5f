//! `cargo xtask libtorch` from end to end, with tiny wheels and a pip that copies them instead of downloading.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use zip::write::{SimpleFileOptions, ZipWriter};

/// A workspace, a cache, and a PATH on which the only Python is ours.
struct Machine {
    dir: TempDir,
}

/// Stands for `python3`: notes each download, and copies the wheels that the requirements name.
/// `FAKE_PIP` makes it misbehave.
const PYTHON: &str = r#"#!/bin/sh
here=$(dirname "$0")/..
[ "$1" = -m ] && [ "$2" = pip ] || exit 2
case "$3" in
--version) [ "$FAKE_PIP" = missing ] && exit 1; echo pip 99; exit 0 ;;
download) ;;
*) exit 2 ;;
esac
case "$FAKE_PIP" in
offline) echo "WARNING: Retrying after NewConnectionError('Failed to establish a new connection')" >&2
    echo "ERROR: No matching distribution found for torch" >&2; exit 1 ;;
full) echo "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device" >&2; exit 1 ;;
odd) echo "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES" >&2; exit 1 ;;
esac
[ "$PIP_REQUIRE_VIRTUALENV" = 1 ] && { echo "ERROR: Could not find an activated virtualenv (required)." >&2; exit 3; }
echo "$@" >>"$here/pip.log"
case "$TMPDIR" in "$XDG_CACHE_HOME"/*) ;; *) echo "temporary files elsewhere: $TMPDIR" >&2; exit 1 ;; esac
while [ $# -gt 0 ]; do
    case "$1" in
    --dest) shift; dest=$1 ;;
    torch==*) wheels=torch-* ;;
    cuda-toolkit*) wheels=nvidia_* ;;
    esac
    shift
done
if [ "$FAKE_PIP" = hang ] && [ "$wheels" = "nvidia_*" ]; then touch "$here/hanging"; while kill -0 $PPID; do sleep 0.1; done; exit 1; fi
if [ "$FAKE_PIP" = flipped ]; then cp "$here"/damaged/torch-* "$dest/"; exit 0; fi
if [ "$FAKE_PIP" = cut ]; then head -c 100 "$here"/wheels/torch-* >"$dest/torch-2.11.0-cut.whl"; exit 0; fi
cp "$here"/wheels/$wheels "$dest/"
"#;

/// Stands for `curl`: there is no network unless `FAKE_CURL` says so, and then an archive. As curl before 7.64, it
/// cannot go on after the last byte.
const CURL: &str = r#"#!/bin/sh
here=$(dirname "$0")/..
[ "$FAKE_CURL" = serves ] || { echo "curl: (6) Could not resolve host" >&2; exit 6; }
echo "$@" >>"$here/curl.log"
while [ $# -gt 0 ]; do case "$1" in --output) shift; out=$1 ;; esac; shift; done
[ -s "$out" ] && { printf 416; exit 22; }
cp "$here/libtorch.zip" "$out"
printf 200
"#;

/// Stands for `c++`: the real one, but that `FAKE_CXX=old` knows no C++17, and that what is only a trial is not compiled.
const CXX: &str = r#"#!/bin/sh
case "$*" in *-std=c++17*)
    [ "$FAKE_CXX" = old ] || exit 0
    echo "<stdin>:1:10: fatal error: filesystem: No such file or directory" >&2; exit 1 ;;
esac
PATH=${PATH#*:} exec c++ "$@"
"#;

const METADATA: &str = "\
Name: torch
Version: 2.11.0
Requires-Dist: sympy>=1.13.3
Requires-Dist: cuda-toolkit[cudart,cublas,cupti]==13.0.2; platform_system == \"Linux\"
Requires-Dist: nvidia-nccl-cu13==2.28.9; platform_system == \"Linux\"
";

const HEADER: &str = "torch/include/torch/csrc/api/include/torch/torch.h";

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        for folder in ["workspace/xtask", "workspace/.cargo", "bin", "wheels", "damaged", "libraries", "home"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        fs::write(path.join("workspace/Cargo.toml"), "[workspace]\n").unwrap();
        for (name, script) in [("python3", PYTHON), ("curl", CURL), ("c++", CXX)] {
            executable(&path.join("bin").join(name), script);
        }
        // The other names by which pip is looked for lead nowhere, least of all to the pip of whoever runs the tests.
        for name in ["python", "pip3", "pip", "wget"] {
            executable(&path.join("bin").join(name), "#!/bin/sh\nexit 1\n");
        }

        let library = |name: &str, needs: &[&str]| build_library(&path.join("libraries"), name, needs);
        let system =
            ["libcudart.so.13", "libcupti.so.13", "libgomp.so.1", "libtorch_cuda.so"].map(|name| library(name, &[]));
        let [cudart, cupti, gomp, cuda] = system;
        let c10 = library("libc10.so", &[]);
        let deep = library("libarm_deep.so", &[]);
        let arm = library("libarm.so", &["libarm_deep.so"]);
        let cpu = library(
            "libtorch_cpu.so",
            &["libc10.so", "libgomp.so.1", "libarm.so", "libcudart.so.13", "libcupti.so.13"],
        );
        let torch = library("libtorch.so", &["libtorch_cpu.so", "libtorch_cuda.so"]);
        wheel(
            &path.join("wheels/torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
            &[
                (HEADER, b"// torch.h"),
                ("torch/lib/libtorch_cpu.so", &cpu),
                ("torch/lib/libtorch_cuda.so", &cuda),
                ("torch/lib/libtorch.so", &torch),
                ("torch/lib/libc10.so", &c10),
                ("torch/lib/libarm.so", &arm),
                ("torch/lib/libarm_deep.so", &deep),
                ("torch/lib/libgomp.so.1", &gomp),
                ("torch/lib/libtorch_python.so", b"not for us"),
                ("torch/lib/libshm/alloc_info.h", b"not for us"),
                ("torch/nn/functional.py", b"not for us"),
                ("torch-2.11.0.dist-info/METADATA", METADATA.as_bytes()),
            ],
        );
        wheel(
            &path.join("libtorch.zip"),
            &[
                (&HEADER.replacen("torch/", "libtorch/", 1), b"// torch.h"),
                ("libtorch/lib/libtorch_cpu.so", &cpu),
                ("libtorch/lib/libtorch.so", b"an empty library"),
                ("libtorch/lib/libc10.so", &c10),
            ],
        );
        wheel(
            &path.join("wheels/nvidia_cuda_runtime-13.0.96.whl"),
            &[("nvidia/cu13/lib/libcudart.so.13", &cudart), ("nvidia/cu13/lib/libcudart_static.a", b"not for us")],
        );
        wheel(&path.join("wheels/nvidia_cuda_cupti-13.0.85.whl"), &[("nvidia/cu13/lib/libcupti.so.13", &cupti)]);
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.path("cache/dit-rs/libtorch").join(name)
    }

    /// The program, in an environment without the libtorch of whoever runs the tests.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        // The room that the real wheels would take is not needed.
        command
            .args(["libtorch", "--ignore-disk-space"])
            .args(arguments)
            .current_dir(self.path("workspace"))
            .stdin(Stdio::null());
        let system = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{system}", self.path("bin").display()));
        command.env("CARGO_MANIFEST_DIR", self.path("workspace/xtask")).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("HOME", self.path("home")).env("CARGO_HOME", self.path("home/.cargo"));
        for name in [
            "LIBTORCH",
            "LIBTORCH_LIB",
            "LIBTORCH_INCLUDE",
            "LIBTORCH_USE_PYTORCH",
            "LIBTORCH_BYPASS_VERSION_CHECK",
            "VIRTUAL_ENV",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CXX",
            "HOST_CXX",
            "CXXFLAGS",
        ] {
            command.env_remove(name);
        }
        command
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        succeeded(self.command(arguments))
    }

    /// How often pip was asked to download something.
    fn downloads(&self) -> usize {
        fs::read_to_string(self.path("pip.log")).unwrap_or_default().lines().count()
    }

    fn config(&self) -> toml::Table {
        fs::read_to_string(self.path("workspace/.cargo/libtorch.toml")).unwrap().parse().unwrap()
    }

    #[track_caller]
    fn configured_root(&self) -> PathBuf {
        self.config()["env"]["LIBTORCH"]["value"].as_str().unwrap().into()
    }
}

fn executable(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeded(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

/// Fails, and its last line is one sentence that starts with `error: ` and holds all of `phrases`.
#[track_caller]
fn fails(mut command: Command, phrases: &[&str]) {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let text = stderr(&output);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("error: "), "{text}");
    for phrase in phrases {
        assert!(last.contains(phrase), "no {phrase:?} in: {text}");
    }
}

/// A shared library that needs others of the folder.
fn build_library(dir: &Path, name: &str, needs: &[&str]) -> Vec<u8> {
    let source = dir.join("empty.c");
    fs::write(&source, "").unwrap();
    let mut command = Command::new("cc");
    command.current_dir(dir).args(["-shared", "-fPIC", "-nostdlib", "-Wl,--no-as-needed"]);
    command.arg(format!("-Wl,-soname,{name}")).arg(&source).args(needs).args(["-o", name]);
    if name == "libtorch_cuda.so" {
        // The function that programs are tied to it by.
        fs::write(&source, "int aoti_torch_create_cuda_guard(int i, void **g) { return 0; }").unwrap();
    }
    assert!(command.status().unwrap().success(), "{name}");
    fs::read(dir.join(name)).unwrap()
}

fn wheel(path: &Path, files: &[(&str, &[u8])]) {
    let mut writer = ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// Names in a folder, sorted.
#[track_caller]
fn listing(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_cpu_build_is_what_libtorch_cpu_needs_and_the_next_clone_downloads_nothing() {
    let machine = Machine::new();
    let said = machine.succeeds(&[]);
    assert!(said.contains("libtorch 2.11.0 (cpu)"), "{said}");

    let home = machine.cache("2.11.0-cpu");
    assert_eq!(
        listing(&home.join("lib")),
        [
            "libarm.so",
            "libarm_deep.so",
            "libc10.so",
            "libcudart.so.13",
            "libcupti.so.13",
            "libgomp.so",
            "libgomp.so.1",
            "libtorch.so",
            "libtorch_cpu.so",
        ]
    );
    assert_eq!(fs::read_to_string(home.join("lib/libtorch.so")).unwrap(), "INPUT(-ltorch_cpu -lc10)\n");
    assert_eq!(fs::read_link(home.join("lib/libgomp.so")).unwrap(), Path::new("libgomp.so.1"));
    assert_eq!(fs::read_to_string(home.join("build-version")).unwrap(), "2.11.0+cpu\n");
    assert!(home.join("include/torch/csrc/api/include/torch/torch.h").is_file());
    assert_eq!(listing(&machine.cache("")), ["2.11.0-cpu", "2.11.0-cpu.lock"], "no download is kept");

    let config = machine.config();
    let run_path = format!("link-arg=-Wl,-rpath,{}", home.join("lib").display());
    assert_eq!(machine.configured_root(), home);
    for flags in ["rustflags", "rustdocflags"] {
        assert_eq!(config["build"][flags].as_array().unwrap()[1].as_str(), Some(run_path.as_str()));
    }

    let log = fs::read_to_string(machine.path("pip.log")).unwrap();
    let [torch, nvidia] = log.lines().collect::<Vec<_>>()[..] else { panic!("{log}") };
    assert!(torch.contains("--no-deps") && torch.contains("torch==2.11.0"), "{torch}");
    assert!(nvidia.ends_with("cuda-toolkit[cudart,cupti]==13.0.2") && !nvidia.contains("--no-deps"), "{nvidia}");

    fs::remove_file(machine.path("workspace/.cargo/libtorch.toml")).unwrap();
    machine.succeeds(&[]);
    assert_eq!(machine.downloads(), 2, "a second clone");
    assert_eq!(machine.configured_root(), home);
    machine.succeeds(&["--force"]);
    assert_eq!(machine.downloads(), 4, "--force");
}

#[test]
fn a_run_that_was_killed_is_taken_up_where_it_was() {
    let machine = Machine::new();
    // Killed while pip is at the second download.
    let mut child = machine.command(&[]).env("FAKE_PIP", "hang").stderr(Stdio::null()).spawn().unwrap();
    while !machine.path("hanging").exists() {
        std::thread::sleep(Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!machine.cache("2.11.0-cpu").exists(), "nothing half made has the final name");
    assert!(machine.cache("2.11.0-cpu.partial/lib/libtorch_cpu.so").exists());
    assert_eq!(machine.downloads(), 2);

    machine.succeeds(&[]);
    assert_eq!(machine.downloads(), 3, "torch itself was complete and is not downloaded again");
    assert_eq!(listing(&machine.cache("")), ["2.11.0-cpu", "2.11.0-cpu.lock"]);
}

#[test]
fn what_is_broken_in_the_cache_is_made_anew() {
    let machine = Machine::new();
    machine.succeeds(&[]);
    fs::remove_file(machine.cache("2.11.0-cpu/lib/libc10.so")).unwrap();
    let said = machine.succeeds(&[]);
    assert!(said.contains("serves no more") && said.contains("libc10.so is missing"), "{said}");
    assert!(machine.cache("2.11.0-cpu/lib/libc10.so").is_file());
    // A power cut before anything was flushed.
    fs::write(machine.cache("2.11.0-cpu/lib/libc10.so"), "").unwrap();
    let said = machine.succeeds(&[]);
    assert!(said.contains("libc10.so is empty"), "{said}");
    assert_ne!(fs::metadata(machine.cache("2.11.0-cpu/lib/libc10.so")).unwrap().len(), 0);
}

#[test]
fn two_at_once_download_once() {
    let machine = Machine::new();
    let start = || machine.command(&[]).stderr(Stdio::null()).spawn().unwrap();
    for mut child in [start(), start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(machine.downloads(), 2);
    assert_eq!(listing(&machine.path("workspace/.cargo")), ["libtorch.toml"]);
}

#[test]
fn a_damaged_download_is_removed_so_that_the_next_run_succeeds() {
    let machine = Machine::new();
    let mut command = machine.command(&[]);
    command.env("FAKE_PIP", "cut");
    fails(command, &["damaged", "run this again"]);
    machine.succeeds(&[]);
}

#[test]
fn one_wrong_byte_inside_a_wheel_is_a_damaged_download() {
    let machine = Machine::new();
    let name = "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl";
    let mut bytes = fs::read(machine.path("wheels").join(name)).unwrap();
    let library = b"torch/lib/libtorch_cpu.so";
    let at = bytes.windows(library.len()).position(|window| window == library).unwrap();
    bytes[at + library.len() + 40] ^= 1;
    fs::write(machine.path("damaged").join(name), bytes).unwrap();
    let mut command = machine.command(&[]);
    command.env("FAKE_PIP", "flipped");
    fails(command, &["damaged", "run this again", "libtorch_cpu.so"]);
    assert!(!machine.cache("2.11.0-cpu.download").exists());
    machine.succeeds(&[]);
}

#[test]
fn the_archive_takes_over_where_pip_fails() {
    for fault in ["missing", "odd"] {
        let machine = Machine::new();
        let mut command = machine.command(&[]);
        command.env("FAKE_PIP", fault);
        fails(command, &["cannot be downloaded", "check the network"]);

        // Of full length, but no archive: the server has nothing after it.
        let part = machine.cache("2.11.0-cpu.download/libtorch.zip.part");
        fs::write(&part, vec![0; fs::metadata(machine.path("libtorch.zip")).unwrap().len() as usize]).unwrap();
        let mut command = machine.command(&[]);
        command.env("FAKE_PIP", fault).env("FAKE_CURL", "serves");
        let said = succeeded(command);
        assert!(said.contains("taking the official archive") && said.contains("from the beginning"), "{said}");
        assert_eq!(fs::read_to_string(machine.path("curl.log")).unwrap().lines().count(), 2);
        assert_eq!(machine.configured_root(), machine.cache("2.11.0-cpu"));
        assert_eq!(listing(&machine.cache("")), ["2.11.0-cpu", "2.11.0-cpu.lock"]);
    }
}

#[test]
fn a_damaged_archive_is_removed_so_that_the_next_run_succeeds() {
    let machine = Machine::new();
    let zip = machine.path("libtorch.zip");
    let whole = fs::read(&zip).unwrap();
    let mut bytes = whole.clone();
    bytes[200] ^= 1;
    fs::write(&zip, bytes).unwrap();
    let run = || {
        let mut command = machine.command(&[]);
        command.env("FAKE_PIP", "missing").env("FAKE_CURL", "serves");
        command
    };
    fails(run(), &["damaged", "run this again"]);
    fs::write(&zip, whole).unwrap();
    succeeded(run());
}

#[test]
fn pips_own_configuration_is_no_obstacle() {
    let machine = Machine::new();
    let mut command = machine.command(&[]);
    command.env("PIP_REQUIRE_VIRTUALENV", "1");
    succeeded(command);
    assert_eq!(machine.downloads(), 2);
}

#[test]
fn an_old_compiler_is_told_before_anything_is_downloaded() {
    let machine = Machine::new();
    let mut command = machine.command(&[]);
    command.env("FAKE_CXX", "old");
    fails(command, &["filesystem: No such file or directory", "install g++ 9 or newer"]);
    let mut command = machine.command(&[]);
    command.env("CXX", "no-such-compiler");
    fails(command, &["`no-such-compiler` does not start", "install g++ 9 or newer"]);
    assert_eq!(machine.downloads(), 0);
}

#[test]
fn each_failure_is_one_line_that_says_what_to_do() {
    let machine = Machine::new();
    for (fault, phrases) in [
        ("offline", &["cannot reach its package index", "check the network"][..]),
        ("full", &["the disk filled up", "XDG_CACHE_HOME"]),
    ] {
        let mut command = machine.command(&[]);
        command.env("FAKE_PIP", fault);
        fails(command, phrases);
    }
    assert!(!machine.path("workspace/.cargo/libtorch.toml").exists());

    // Neither a Python nor anything that could download the archive.
    executable(&machine.path("home/c++"), "#!/bin/sh\n");
    let mut command = machine.command(&[]);
    command.env("PATH", machine.path("home"));
    fails(command, &["pip is missing", "curl nor wget"]);
}

#[test]
fn the_cuda_build_keeps_torch_and_nvidia_side_by_side_and_is_linked_to() {
    let machine = Machine::new();
    let said = machine.succeeds(&["--cuda"]);
    assert!(said.contains("libtorch 2.11.0 (cuda)"), "{said}");
    let home = machine.cache("2.11.0-cuda");
    assert_eq!(machine.configured_root(), home.join("torch"));
    assert!(home.join("torch/lib/libtorch_cuda.so").is_file() && home.join("torch/lib/libtorch.so").is_file());
    assert!(!home.join("torch/lib/libtorch_python.so").exists());
    assert_eq!(listing(&home.join("nvidia/cu13/lib")), ["libcudart.so.13", "libcupti.so.13"]);
    assert_eq!(fs::read_to_string(home.join("torch/build-version")).unwrap(), "2.11.0+cuda\n");
    let log = fs::read_to_string(machine.path("pip.log")).unwrap();
    assert!(log.contains("cuda-toolkit[cudart,cublas,cupti]==13.0.2 nvidia-nccl-cu13==2.28.9"), "{log}");

    let link = PathBuf::from(machine.config()["env"]["LIBTORCH_LIB"]["value"].as_str().unwrap());
    let script = fs::read_to_string(link.join("lib/libtorch.so")).unwrap();
    assert!(script.contains(home.join("torch/lib/libtorch_cuda.so").to_str().unwrap()), "{script}");

    // Without --cuda, what is set up stays; cargo hands the configured values to us as environment.
    let mut again = machine.command(&[]);
    again.env("LIBTORCH", home.join("torch")).env("LIBTORCH_LIB", &link);
    succeeded(again);
    assert_eq!((machine.downloads(), machine.configured_root()), (2, home.join("torch")));
    assert_eq!(machine.config()["env"]["LIBTORCH_LIB"]["value"].as_str(), link.to_str());
}

#[test]
fn a_libtorch_of_the_users_own_comes_first() {
    let machine = Machine::new();
    machine.succeeds(&[]);
    let own = machine.path("own");
    fs::rename(machine.cache("2.11.0-cpu"), &own).unwrap();
    let with_own = |arguments: &[&str]| {
        let mut command = machine.command(arguments);
        command.env("LIBTORCH", &own);
        command
    };
    succeeded(with_own(&[]));
    assert_eq!((machine.configured_root(), machine.downloads()), (own.clone(), 2));
    // It stays when the variable is gone, and `cargo xtask` shows us our own configuration as the variable.
    machine.succeeds(&[]);
    assert_eq!((machine.configured_root(), machine.downloads()), (own.clone(), 2));

    fails(
        {
            let mut command = with_own(&["--cuda"]);
            command.env("LIBTORCH", machine.path("home"));
            command
        },
        &["LIBTORCH=", "torch.h is missing", "unset LIBTORCH"],
    );
    // Not the configured one, so it is the user's.
    let other = machine.path("other");
    fs::rename(&own, &other).unwrap();
    let other_with = |arguments: &[&str]| {
        let mut command = machine.command(arguments);
        command.env("LIBTORCH", &other);
        command
    };
    fails(other_with(&["--cuda"]), &["no libtorch_cuda", "--cuda"]);
    fs::write(other.join("build-version"), "2.9.1+cpu").unwrap();
    fails(other_with(&[]), &["version 2.9.1", "2.11.0 is needed"]);
}

#[test]
fn a_libtorch_given_by_a_relative_path_is_found_from_everywhere() {
    let machine = Machine::new();
    machine.succeeds(&[]);
    let own = machine.path("workspace/own");
    fs::rename(machine.cache("2.11.0-cpu"), &own).unwrap();
    let mut command = machine.command(&[]);
    command.env("LIBTORCH", "own").env("LIBTORCH_INCLUDE", "./own").env("LIBTORCH_LIB", "own/../own");
    succeeded(command);
    let config = machine.config();
    assert_eq!(machine.configured_root(), own);
    assert_eq!(config["env"]["LIBTORCH_INCLUDE"]["value"].as_str(), own.to_str());
    let lib = machine.path("workspace/own/../own");
    assert_eq!(config["env"]["LIBTORCH_LIB"]["value"].as_str(), lib.to_str());
    let run_path = config["build"]["rustflags"].as_array().unwrap()[1].as_str().unwrap();
    assert_eq!(run_path, format!("link-arg=-Wl,-rpath,{}", lib.join("lib").display()));
}

#[test]
fn the_placeholder_that_cargo_sets_before_the_first_set_up_is_no_libtorch_of_the_users() {
    let machine = Machine::new();
    let mut command = machine.command(&[]);
    command.env("LIBTORCH", machine.path("workspace/.cargo/no-libtorch"));
    succeeded(command);
    assert_eq!(machine.configured_root(), machine.cache("2.11.0-cpu"));
}

#[test]
fn a_python_with_torch_serves_when_asked_for() {
    let machine = Machine::new();
    machine.succeeds(&[]);
    let package = machine.path("site-packages/torch");
    fs::create_dir_all(package.parent().unwrap()).unwrap();
    fs::rename(machine.cache("2.11.0-cpu"), &package).unwrap();
    fs::remove_file(package.join("build-version")).unwrap();
    fs::write(package.join("version.py"), "__version__ = '2.11.0+cu130'\n").unwrap();
    let python = machine.path("bin/python3");
    fs::write(&python, format!("#!/bin/sh\necho {}\n", package.display())).unwrap();
    let asked = || {
        let mut command = machine.command(&[]);
        command.env("LIBTORCH_USE_PYTORCH", "1");
        command
    };
    succeeded(asked());
    assert_eq!(machine.configured_root(), package);

    fs::write(&python, "#!/bin/sh\necho\n").unwrap();
    fails(asked(), &["LIBTORCH_USE_PYTORCH", "has no torch"]);
}

#[test]
fn flags_for_a_target_in_the_users_own_configuration_do_not_hide_the_run_path() {
    let machine = Machine::new();
    let own = machine.path("home/.cargo/config.toml");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "[target.x86_64-unknown-linux-gnu]\nrustflags = ['-Clink-arg=-fuse-ld=mold']\n").unwrap();
    machine.succeeds(&[]);
    let config = machine.config();
    assert_eq!(config["target"]["cfg(all())"]["rustflags"], config["build"]["rustflags"]);
}
