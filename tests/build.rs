//! Compiles the stand-in for a GPU, a library that is loaded before a program, against the libtorch that it stands in for.

use std::{env, path::PathBuf};

const SOURCE: &str = "stand_in_gpu/device.cpp";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-changed=build.rs");
    let path = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    let same = env::var_os("HOST") == env::var_os("TARGET");
    let (Some(include), Some(lib)) = (path("DEP_DIT_TORCH_INCLUDE"), path("DEP_DIT_TORCH_LIB")) else { return };
    // Where there is a real one, its operators are there already.
    let real = lib.join("libtorch_cuda.so");
    println!("cargo:rerun-if-changed={}", if real.exists() { real.display() } else { lib.display() });
    if !linux || !same || real.exists() {
        return;
    }
    let library = path("OUT_DIR").expect("cargo sets it").join("libstand_in_gpu.so");
    let abi = env::var("DEP_DIT_TORCH_CXX11_ABI").unwrap_or("1".to_owned());
    let mut compiler = cc::Build::new().cpp(true).opt_level(1).debug(false).get_compiler().to_command();
    let rpath = format!("-Wl,-rpath,{}", lib.display());
    compiler.args(["-std=c++17", "-fPIC", "-shared"]).arg(format!("-D_GLIBCXX_USE_CXX11_ABI={abi}"));
    compiler.arg("-I").arg(&include).arg("-I").arg(include.join("torch/csrc/api/include"));
    compiler.arg(SOURCE).arg("-o").arg(&library).arg("-L").arg(&lib).args([
        "-ltorch_cpu",
        "-lc10",
        "-Wl,-z,defs",
        &rpath,
    ]);
    let output = compiler.output().expect("dit-torch was compiled with it");
    // That it does not compile is for its tests to tell.
    match output.status.success() {
        true => println!("cargo:rustc-env=STAND_IN_GPU={}", library.display()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr).lines().take(3).collect::<Vec<_>>().join("; ");
            println!("cargo:rustc-env=STAND_IN_GPU_FAILED={why}");
        }
    }
}
