//! Compiles the C++ beside the Rust against the headers of the libtorch that torch-sys links.

use std::{env, path::PathBuf, process::exit};

fn main() {
    let sources = ["src/bring.cpp", "src/capture.cpp", "src/graph.cpp", "src/lists.cpp"];
    for source in sources.iter().chain(&["src/crossing.h"]) {
        println!("cargo:rerun-if-changed={source}");
    }
    let path = |variable: &str| {
        println!("cargo:rerun-if-env-changed={variable}");
        env::var_os(variable).map(PathBuf::from)
    };
    // In the order in which torch-sys takes them. Of what it finds itself it tells the folder of libraries.
    let beside = path("DEP_TCH_LIBTORCH_LIB").map(|lib| lib.join(".."));
    let candidates = match path("LIBTORCH_USE_PYTORCH") {
        Some(_) => {
            if path("LIBTORCH_LIB").is_some() {
                println!(
                    "cargo:warning=LIBTORCH_USE_PYTORCH is set: this links Python's torch, and no CUDA even where it has it"
                );
                println!("cargo:warning=unset it, and what `cargo xtask libtorch` has set up is used");
            }
            vec![beside]
        }
        None => vec![path("LIBTORCH_INCLUDE"), path("LIBTORCH"), beside],
    };
    let candidates: Vec<_> = candidates.into_iter().flatten().map(|root| root.join("include")).collect();
    let Some(include) = candidates.iter().find(|include| include.join("torch/csrc/autograd").is_dir()) else {
        println!("cargo:warning=no headers of libtorch, torch/csrc/autograd, in any of {candidates:?}");
        println!("cargo:warning=set LIBTORCH to a folder that has them in `include`: `cargo xtask libtorch` makes one");
        exit(1);
    };
    let abi = path("LIBTORCH_CXX11_ABI").unwrap_or_else(|| "1".into());
    // For build scripts of crates that depend on this one and have C++ of their own.
    println!("cargo:include={}", include.display());
    println!("cargo:cxx11_abi={}", abi.display());
    if let Some(lib) = path("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:lib={}", lib.display());
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.to_str())
        .include(include)
        .include(include.join("torch/csrc/api/include"))
        .files(sources)
        .compile("dit_torch");
}
