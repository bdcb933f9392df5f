//! The C++ compiler that libtorch's bindings are built with.

use std::env::consts::{ARCH, OS};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A compiler, as a command's first words: `CXX` may be `ccache g++`.
pub struct Compiler {
    words: Vec<String>,
}

/// What g++ 8 does not link and older ones do not compile.
const PROGRAM: &str = "\
#include <filesystem>
#include <string_view>
int main() { return std::filesystem::path(std::string_view(\"a\")).has_root_path(); }
";

impl Compiler {
    /// The one that torch-sys, which asks the `cc` crate, will call too.
    pub fn find() -> Self {
        Self::among(|name| std::env::var(name).ok())
    }

    fn among(variable: impl Fn(&str) -> Option<String>) -> Self {
        let target = match OS {
            "macos" => format!("{ARCH}-apple-darwin"),
            _ => format!("{ARCH}-unknown-linux-gnu"),
        };
        let names =
            [format!("CXX_{target}"), format!("CXX_{}", target.replace('-', "_")), "HOST_CXX".into(), "CXX".into()];
        let chosen = names.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()));
        let chosen = chosen.unwrap_or_else(|| "c++".to_owned());
        // A path may have spaces in it.
        if Path::new(&chosen).is_file() {
            return Self { words: vec![chosen] };
        }
        Self { words: chosen.split_whitespace().map(str::to_owned).collect() }
    }

    /// Its start, to which arguments are added.
    pub fn command(&self) -> Command {
        let (program, arguments) = self.words.split_first().map_or(("c++", &[][..]), |(first, rest)| (first, rest));
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    /// Refuses one that cannot build the bindings, in a sentence.
    pub fn require_cxx17(&self) -> Result<()> {
        let dir = tempfile::tempdir().context("no temporary folder can be made")?;
        let mut command = self.command();
        command.args(std::env::var("CXXFLAGS").unwrap_or_default().split_whitespace());
        command.args(["-std=c++17", "-x", "c++", "-", "-o"]).arg(dir.path().join("program"));
        let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = started else { bail!("the C++ compiler `{self}` does not start; {HELP}") };
        if let Some(mut input) = child.stdin.take() {
            // One that reads nothing says why on its standard error.
            let _ = input.write_all(PROGRAM.as_bytes());
        }
        let output =
            child.wait_with_output().with_context(|| format!("the C++ compiler `{self}` cannot be waited for"))?;
        if output.status.success() {
            return Ok(());
        }
        let complaints = String::from_utf8_lossy(&output.stderr);
        let said = complaints.lines().find(|line| line.contains("error")).or_else(|| complaints.lines().next());
        let status = output.status.to_string();
        bail!("the C++ compiler `{self}` cannot build a C++17 program ({}); {HELP}", said.unwrap_or(&status).trim())
    }
}

impl std::fmt::Display for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

const HELP: &str = if cfg!(target_os = "macos") {
    "install Apple's, with `xcode-select --install`, or set CXX to one that can"
} else {
    "install g++ 9 or newer, e.g. with `apt install g++`, or set CXX to one that can"
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_the_cc_crate_would_take() {
        let for_target = format!("CXX_{ARCH}_{}", if OS == "macos" { "apple_darwin" } else { "unknown_linux_gnu" });
        let check = |set: &[(&str, &str)], expected: &str| {
            let found = Compiler::among(|name| Some(set.iter().find(|(set, _)| *set == name)?.1.to_owned()));
            assert_eq!(found.to_string(), expected, "{set:?}");
        };
        check(&[], "c++");
        check(&[("CXX", "")], "c++");
        check(&[("CXX", "g++-12")], "g++-12");
        check(&[("CXX", "g++"), ("HOST_CXX", "clang++")], "clang++");
        check(&[("CXX", "g++"), (&for_target, "ccache clang++")], "ccache clang++");
        let wrapped = Compiler { words: vec!["env".into(), "true".into()] };
        assert!(wrapped.command().status().unwrap().success());

        let dir = tempfile::tempdir().unwrap();
        let spaced = dir.path().join("my compiler");
        std::fs::write(&spaced, "").unwrap();
        assert_eq!(Compiler::among(|_| spaced.to_str().map(str::to_owned)).words.len(), 1);
    }

    #[test]
    fn one_that_cannot_is_refused_in_a_sentence() {
        Compiler::find().require_cxx17().unwrap();
        let check = |words: &[&str], expected: &str| {
            let compiler = Compiler { words: words.iter().map(|word| (*word).to_owned()).collect() };
            let error = compiler.require_cxx17().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("; install") && !error.contains('\n'), "{error}");
        };
        check(&["no-such-compiler"], "`no-such-compiler` does not start");
        check(&["false"], "`false` cannot build a C++17 program (exit status: 1)");
        let broken = "cat >/dev/null; echo in file: >&2; echo 'fatal error: filesystem: none' >&2; exit 1";
        check(&["sh", "-c", broken], "(fatal error: filesystem: none)");
    }
}
