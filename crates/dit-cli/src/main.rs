//! The engine behind `dit-cli`: arguments in, files and messages out. What it does is in the libraries.

mod advice;
mod build_id;
mod commands;
mod gpu_memory;
mod interrupt;
mod log;
mod machine;
mod open;
mod panic;
mod progress;
mod recorded;
mod run_folder;
mod speak;
mod torch_text;
mod usage;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Parser;
use dit_args::{Cli, Command};

use crate::torch_text::{is_want_of_memory, without_call_stack};

fn main() -> ExitCode {
    panic::install();
    bear_the_name_typed();
    // What another build's `dit-cli` took for right may be wrong usage here.
    if let Err(error) = check_front() {
        speak::say(format_args!("error: {error}"));
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    log::to_stderr(cli.verbose);
    match catch_unwind(AssertUnwindSafe(|| dispatch(cli.command))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            speak::say(format_args!("error: {}", chain(&error)));
            usage::exit_code(&error)
        }
        // The panic's own message has been shown.
        Err(_) => ExitCode::FAILURE,
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Sample(args) => commands::sample::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Convert(args) => commands::convert::run(&args),
        Command::PrecomputeLatents(args) => commands::precompute::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Evaluate(args) => commands::evaluate::run(&args),
        Command::TrainFeatures(args) => commands::train_features::run(&args),
        Command::CalibrateCache(args) => commands::calibrate_cache::run(&args),
        Command::TrainClassifier(args) => commands::train_classifier::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    }
}

/// Whether this program was started by the `dit-cli` that was built with it, or by itself.
fn check_front() -> Result<()> {
    let (Some(front), this) = (std::env::var_os(build_id::VARIABLE), build_id::of_this()) else { return Ok(()) };
    if front != *this {
        bail!(
            "dit-cli is of build {}, dit-cli-engine beside it of {this}\n  \
             help: the two programs belong together; `cargo build -p dit-cli` makes both, with --release in target/release",
            front.display()
        );
    }
    Ok(())
}

/// `ps`, `top` and `killall` know this process as what was typed, though another program was started and became this one.
fn bear_the_name_typed() {
    let typed = std::env::args_os().next().map(PathBuf::from);
    if let (true, Some(name)) = (cfg!(target_os = "linux"), typed.as_deref().and_then(Path::file_name)) {
        // Without /proc it keeps the program's name, which is no reason to stop.
        let _ = std::fs::write("/proc/self/comm", name.as_encoded_bytes());
    }
}

/// The error and its causes on one line, those left out that the one before already says, and what to type instead, or what helps
/// where libtorch lacked memory, where nobody said it yet.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = without_call_stack(&cause);
        if text.is_empty() {
            text = cause.to_owned();
        } else if !text.contains(cause) {
            text = format!("{text}: {cause}");
        }
    }
    if text.contains("help: ") {
        return text;
    }
    if let Some(help) = error.chain().find_map(advice::of) {
        return format!("{text}\n  help: {help}");
    }
    let of_libtorch = error.chain().any(|cause| cause.is::<tch::TchError>());
    if of_libtorch && is_want_of_memory(&text) {
        return format!("{text}\n  help: {}", panic::memory_help());
    }
    text
}
