//! Compiles `node.cpp` against the headers of the libtorch that torch-sys has found.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/node.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // torch-sys tells where the libraries are; the headers lie beside them, unless its own variable says otherwise.
    let beside = || env::var_os("DEP_TCH_LIBTORCH_LIB").map(|lib| PathBuf::from(lib).join(".."));
    let root = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from).or_else(beside);
    let Some(root) = root.map(|root| root.join("include")).filter(|root| root.join("torch/csrc/autograd").is_dir()) else {
        println!("cargo:warning=no headers of libtorch found: set LIBTORCH_INCLUDE to the folder that has `include`");
        std::process::exit(1);
    };
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .include(root.join("torch/csrc/api/include"))
        .include(root)
        .file("src/node.cpp")
        .compile("dit_autograd_node");
}
