//! What is typed: `dit-cli`. It reads the arguments, and answers at once what needs no computing: help, the version, completions,
//! wrong usage. All else is for `dit-cli-engine`, the program beside it that is linked with libtorch, which takes a fifth of a
//! second to load. On Unix this process becomes that one: its number, name, files and signals stay as they are.
//!
//! Nothing here may name a crate that is linked with libtorch; a test looks.

#[path = "../build_id.rs"]
mod build_id;

use std::{
    env,
    io::{self, ErrorKind, Write},
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use dit_args::Cli;

fn main() -> ExitCode {
    let answered = match Cli::parse().command {
        dit_args::Command::Completions(args) => print(args.script().as_bytes()),
        _ => hand_over(),
    };
    answered.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

/// On stdout. A reader that has seen enough is no error.
fn print(text: &[u8]) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// By what users say how OpenMP's threads wait for one another: first how often GNU's library, which libtorch brings, looks before it sleeps.
const WAITING: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
/// Some fifty microseconds; a third of that costs a percent where nobody else computes. By itself the library spins for milliseconds: where
/// others compute on the same cores, who is waited for does not get one meanwhile, and small models take ten times as long.
const SHORT_SPIN: &str = "3000";

/// The engine does what was typed.
fn hand_over() -> Result<ExitCode> {
    let engine = engine()?;
    let mut command = Command::new(&engine);
    command.args(env::args_os().skip(1)).env(build_id::VARIABLE, build_id::of_this());
    if WAITING.iter().all(|variable| env::var_os(variable).is_none()) {
        command.env(WAITING[0], SHORT_SPIN);
    }
    turn_into(command).with_context(|| format!("{} does not start", engine.display()))
}

/// The engine beside this program, wherever links to this program lie.
fn engine() -> Result<PathBuf> {
    let this =
        env::current_exe().and_then(|path| path.canonicalize()).context("where this program lies is not known")?;
    let engine = this.with_file_name("dit-cli-engine").with_extension(env::consts::EXE_EXTENSION);
    if !engine.is_file() {
        bail!(
            "{} is missing\n  help: the two programs belong into one folder; `cargo build -p dit-cli` makes both",
            engine.display()
        );
    }
    Ok(engine)
}

/// Only returns if that is not possible.
#[cfg(unix)]
fn turn_into(mut command: Command) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    if let Some(typed) = env::args_os().next() {
        command.arg0(typed);
    }
    Err(command.exec())
}

/// Waits for it where a process cannot become another.
#[cfg(not(unix))]
fn turn_into(mut command: Command) -> io::Result<ExitCode> {
    let code = command.status()?.code();
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
