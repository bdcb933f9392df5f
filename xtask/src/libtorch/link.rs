//! A folder for the linker that makes programs really use CUDA.
//!
//! No program calls into `libtorch_cuda.so` by name: its operators register themselves when it is loaded. Linkers
//! drop such a library (`--as-needed`, which rustc always asks for), and CUDA then seems absent. So the linker is
//! shown scripts in place of the libraries, one of which adds an object that does name a function of it.
//! The loader never looks here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::cache::lock;
use super::compiler::Compiler;

/// A constructor, which is kept whatever the linker throws out, names a function of `libtorch_cuda.so`. It also loads what NVRTC would not
/// find: CUDA's compiler at run time, with which cuDNN makes attention for some GPUs, opens `libnvrtc-builtins.so` by its name alone, and a
/// program's run path does not hold for what its libraries open. One that is loaded already is found. (Python's torch loads it likewise.)
fn keep(builtins: Option<&Path>) -> String {
    let load =
        builtins.map(|path| format!("  if (dlopen) dlopen({:?}, 2 /* RTLD_NOW */);\n", path.display().to_string()));
    format!(
        r#"extern "C" int aoti_torch_create_cuda_guard(int, void**);
extern "C" __attribute__((weak)) void* dlopen(const char*, int);
namespace {{
__attribute__((constructor)) void keep_libtorch_cuda() {{
  int (*volatile address)(int, void**) = &aoti_torch_create_cuda_guard;
  (void)address;
{}}}
}}
"#,
        load.unwrap_or_default()
    )
}

/// Where NVRTC's builtins are: beside libtorch, or in NVIDIA's packages beside torch's.
fn nvrtc_builtins(lib: &Path) -> Option<PathBuf> {
    let packages = fs::read_dir(lib.join("../../nvidia")).into_iter().flatten().flatten();
    let mut folders: Vec<_> = packages.map(|package| package.path().join("lib")).collect();
    folders.sort();
    folders.insert(0, lib.to_owned());
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut found: Vec<_> = files.filter(|file| file.file_name().to_string_lossy().starts_with(BUILTINS)).collect();
    found.sort_by_key(fs::DirEntry::file_name);
    found.first().and_then(|file| fs::canonicalize(file.path()).ok())
}

const BUILTINS: &str = "libnvrtc-builtins.so";

/// Makes the folder for the libraries in `lib` and returns what `LIBTORCH_LIB` is to be: it has a `lib/`.
pub fn folder(cache: &Path, lib: &Path) -> Result<PathBuf> {
    let home = cache.join(format!("link-{:016x}", fingerprint(lib)));
    let files = files(&home, lib);
    let complete = |dir: &Path| {
        let same = |(name, text): &(&str, String)| fs::read_to_string(dir.join(name)).is_ok_and(|found| found == *text);
        dir.join(OBJECT).metadata().is_ok_and(|object| object.len() > 0) && files.iter().all(same)
    };
    let lib = home.join("lib");
    if !complete(&lib) {
        let _lock = lock(&home.with_extension("lock"))?;
        // Another process may have made it while we waited.
        if !complete(&lib) {
            replace(&home, &files).with_context(|| format!("{} cannot be made", home.display()))?;
        }
    }
    Ok(home)
}

fn replace(home: &Path, files: &[(&str, String)]) -> Result<()> {
    let partial = home.with_extension("partial");
    for leftover in [&partial, home] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)?;
        }
    }
    make(&partial.join("lib"), files)?;
    Ok(fs::rename(&partial, home)?)
}

const OBJECT: &str = "keep_libtorch_cuda.o";
const SOURCE: &str = "keep_libtorch_cuda.cpp";

/// Linker scripts, and the object's source, by file name. Absolute paths: a library is found, and finds others, where it really is.
fn files(home: &Path, lib: &Path) -> Vec<(&'static str, String)> {
    let library = |name: &str| format!("\"{}\"", lib.join(name).display());
    let (cpu, cuda, c10) = (library("libtorch_cpu.so"), library("libtorch_cuda.so"), library("libc10.so"));
    let object = format!("\"{}\"", home.join("lib").join(OBJECT).display());
    vec![
        ("libtorch.so", format!("INPUT({object} {cuda} {cpu} {c10})\n")),
        ("libtorch_cpu.so", format!("INPUT({cpu})\n")),
        ("libtorch_cuda.so", format!("INPUT({cuda})\n")),
        ("libc10.so", format!("INPUT({c10})\n")),
        (SOURCE, keep(nvrtc_builtins(lib).as_deref())),
    ]
}

fn make(dir: &Path, files: &[(&str, String)]) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, text) in files {
        fs::write(dir.join(name), text)?;
    }
    let compiler = Compiler::find();
    let mut command = compiler.command();
    command.args(["-O1", "-fPIC", "-c"]).arg(dir.join(SOURCE)).arg("-o").arg(dir.join(OBJECT)).stdin(Stdio::null());
    let status = command.status().with_context(|| format!("the C++ compiler `{compiler}` does not start"))?;
    ensure!(status.success(), "the C++ compiler `{compiler}` failed ({status})");
    Ok(())
}

/// FNV-1a of a path, for a name that is the same in every clone.
fn fingerprint(path: &Path) -> u64 {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::libtorch::elf;
    use std::process::Command;

    /// Builds a shared library that defines one function.
    fn library(dir: &Path, name: &str, function: &str) {
        let source = dir.join("source.c");
        fs::write(&source, format!("int {function}() {{ return 1; }}\n")).unwrap();
        let mut command = Command::new("cc");
        command
            .args(["-shared", "-fPIC"])
            .arg(format!("-Wl,-soname,{name}"))
            .arg(&source)
            .arg("-o")
            .arg(dir.join(name));
        assert!(command.status().unwrap().success());
    }

    #[test]
    fn a_program_that_never_names_cuda_is_linked_to_it_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("with space/lib");
        fs::create_dir_all(&lib).unwrap();
        library(&lib, "libtorch_cpu.so", "cpu");
        library(&lib, "libtorch_cuda.so", "aoti_torch_create_cuda_guard");
        library(&lib, "libc10.so", "c10");
        let main = dir.path().join("main.c");
        fs::write(&main, "int cpu(); int main() { return cpu() - 1; }\n").unwrap();

        let needs_cuda = |search: &Path| {
            let program = dir.path().join("program");
            let mut command = Command::new("cc");
            command
                .args(["-Wl,--as-needed", "-Wl,--gc-sections"])
                .arg(&main)
                .arg("-o")
                .arg(&program)
                .arg("-L")
                .arg(search);
            command.args(["-ltorch_cuda", "-ltorch_cpu", "-ltorch", "-lc10"]);
            command.arg(format!("-Wl,-rpath,{}", lib.display()));
            assert!(command.status().unwrap().success());
            assert!(Command::new(&program).status().unwrap().success());
            elf::needed(&program).unwrap().contains(&"libtorch_cuda.so".to_owned())
        };
        let first = folder(dir.path(), &lib).unwrap();
        assert!(needs_cuda(&first.join("lib")));
        assert_eq!(folder(dir.path(), &lib).unwrap(), first, "made once");
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!names.into_iter().any(|name| name.ends_with(".partial")));
        library(&lib, "libtorch.so", "torch");
        assert!(!needs_cuda(&lib), "without the folder the linker drops it: if not, the folder is no longer needed");
    }

    /// As NVRTC does it: by its name alone, which no run path of the program's is good for.
    #[test]
    fn what_nvrtc_opens_by_name_is_loaded_already() {
        let dir = tempfile::tempdir().unwrap();
        let (lib, nvidia) = (dir.path().join("torch/lib"), dir.path().join("nvidia/cu13/lib"));
        [&lib, &nvidia].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        library(&lib, "libtorch_cpu.so", "cpu");
        library(&lib, "libtorch_cuda.so", "aoti_torch_create_cuda_guard");
        library(&lib, "libc10.so", "c10");
        let runs = |builtins: bool| {
            if builtins {
                library(&nvidia, "libnvrtc-builtins.so.13.0", "builtins");
            }
            let main = dir.path().join("main.c");
            let text = "#include <dlfcn.h>\nint main() { return !dlopen(\"libnvrtc-builtins.so.13.0\", RTLD_NOW); }\n";
            fs::write(&main, text).unwrap();
            let program = dir.path().join("program");
            let search = folder(dir.path(), &lib).unwrap().join("lib");
            let mut command = Command::new("cc");
            command.arg(&main).arg("-o").arg(&program).arg("-L").arg(search).args(["-ltorch", "-ldl"]);
            command.arg(format!("-Wl,-rpath,{}", lib.display()));
            assert!(command.status().unwrap().success());
            Command::new(&program).status().unwrap().success()
        };
        assert!(!runs(false), "it is found without being loaded first: if so, nothing needs to load it");
        assert!(runs(true), "a folder made before is made anew");
    }

    #[test]
    fn several_at_once_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib");
        // Left by one that was killed.
        let home = dir.path().join(format!("link-{:016x}", fingerprint(&lib)));
        fs::create_dir_all(home.with_extension("partial").join("lib")).unwrap();
        fs::create_dir_all(&home).unwrap();
        std::thread::scope(|scope| {
            let folders: Vec<_> = (0..4).map(|_| scope.spawn(|| folder(dir.path(), &lib).unwrap())).collect();
            for made in folders {
                assert_eq!(made.join().unwrap(), home);
            }
        });
        assert!(home.join("lib").join(OBJECT).is_file() && !home.with_extension("partial").exists());
    }
}
