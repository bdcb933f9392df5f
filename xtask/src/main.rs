//! Set-up and chores, as `cargo xtask COMMAND`. Links no libtorch: it is what brings libtorch.

mod bench;
mod blocks;
mod demo;
mod emulation;
mod fetch_weights;
mod fid_curves;
mod fuzz;
mod libtorch;
mod measured;
mod page;
mod test;
mod train_demo;
mod training;
mod ui;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up and chores of this workspace",
    after_help = "First time here? `cargo xtask demo` does everything and ends with a picture.",
    max_term_width = 80,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Libtorch(libtorch::Args),
    FetchWeights(Box<fetch_weights::Args>),
    Demo(demo::Args),
    Test(test::Args),
    Fuzz(fuzz::Args),
    Bench(bench::Args),
    TrainDemo(train_demo::Args),
    Blocks(blocks::Args),
    FidCurves(fid_curves::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Workspace::find().and_then(|workspace| match &cli.command {
        Command::Libtorch(args) => libtorch::run(&workspace, args),
        Command::FetchWeights(args) => fetch_weights::run(&workspace, args),
        Command::Demo(args) => demo::run(&workspace, args),
        Command::Test(args) => test::run(&workspace, args),
        Command::Fuzz(args) => fuzz::run(&workspace, args),
        Command::Bench(args) => bench::run(&workspace, args),
        Command::TrainDemo(args) => train_demo::run(&workspace, args),
        Command::Blocks(args) => blocks::run(&workspace, args),
        Command::FidCurves(args) => fid_curves::run(&workspace, args),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
